-- isp.hardening: a message passes because the scanner has read it, and not because nobody objected.
-- A reply such as "Can't allocate memory ERROR" ends rspamd's clamav.lua (3.4 and 3.12) without any symbol.
local scanners = require "lua_scanners/common"
local save_cache = scanners.save_cache

-- clamav.lua calls this with every verdict, also where nothing is cached.
scanners.save_cache = function(task, ...)
  task:cache_set('isp_scanned', true)
  return save_cache(task, ...)
end

rspamd_config:register_symbol{
  name = 'ISP_UNSCANNED',
  type = 'postfilter',
  flags = 'empty,explicit_disable,ignore_passthrough',
  callback = function(task)
    local action = task:get_metric_action()
    if not task:cache_get('isp_scanned') and action ~= 'reject' and action ~= 'soft reject' then
      task:set_pre_result{
        action = 'soft reject',
        message = 'Try again later: the message could not be scanned for viruses',
        module = 'ISP_UNSCANNED',
        priority = 100,  -- above whatever lets the message pass
      }
    end
  end,
}
