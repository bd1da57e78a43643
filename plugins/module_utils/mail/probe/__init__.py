# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a mail host does, asked over SMTP: each case in a connection of its own, nothing on anyone's behalf.

A case is a question with one right kind of answer. Its verdict is *compliant*, *violated* with the transcript,
or *unknown*: deferred (4xx), no answer in time, connection lost. An early refusal is never taken for a closed
hole where it may only be greylisting or a pause.

postscreen (Postfix, POSTSCREEN_README) pauses before its greeting, answers 450 4.3.2 once to a client that
passed its deep tests, and remembers a client that passed for a day or more. So greetings are waited for,
450 4.3.2 brings a new connection, and the early talker comes first, before anything that could pass.

Sources: RFC 5321, RFC 2920 (pipelining), RFC 3207 and RFC 8314 (TLS), RFC 8996 (TLS 1.0 and 1.1 are over), RFC 4954
(AUTH), RFC 5782 (DNSBL test entries), SEC Consult 2023 (SMTP smuggling), Spamhaus (DNSBL return codes), Sobig.F
(mail over the MX of the parent domains of the own PTR name).
"""
