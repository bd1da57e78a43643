-- isp.hardening: a message passes because the scanner has found it clean, and not because nobody objected.
-- A reply such as "Can't allocate memory ERROR" ends rspamd's clamav.lua (3.4 and 3.12) without any symbol, and
-- whatever lets a message pass first, as a map with the action accept, keeps its word over a virus.
local scanners = require "lua_scanners/common"
local save_cache = scanners.save_cache

-- clamav.lua calls this with every verdict, also where nothing is cached.
scanners.save_cache = function(task, digest, rule, verdict, ...)
  task:cache_set('isp_verdict', verdict)
  return save_cache(task, digest, rule, verdict, ...)
end

rspamd_config:register_symbol{
  name = 'ISP_UNSCANNED',
  type = 'postfilter',
  flags = 'empty,explicit_disable,ignore_passthrough',
  callback = function(task)
    local action = task:get_metric_action()
    local verdict = task:cache_get('isp_verdict')
    if verdict == 'OK' or action == 'reject' or action == 'soft reject' then
      return
    end
    task:set_pre_result{
      action = verdict and 'reject' or 'soft reject',
      message = verdict and 'Refused by the virus scanner'
        or 'Try again later: the message could not be scanned for viruses',
      module = 'ISP_UNSCANNED',
      priority = 100,  -- above whatever lets the message pass
    }
  end,
}
