"""No secret leaves redact(), and nothing that is not one is lost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.secrets import HIDDEN, redact, redact_lines

# Each line with VALUE where the secret stands, as the device prints it.
ONE_WORD = """
snmp-server community VALUE RO 10
snmp-server community VALUE view everything ro
snmp-server host 192.0.2.1 version 2c VALUE
snmp-server host 192.0.2.1 vrf MGMT traps version 2c VALUE bgp
snmp-server host 192.0.2.1 VALUE
snmp-server user nms OPS v3 auth sha VALUE priv aes 128 VALUE
snmp-server user nms OPS v3 localized f5717f auth sha512 VALUE priv aes VALUE
enable password level 15 7 VALUE
username admin privilege 15 password 7 VALUE
username admin privilege 15 role network-admin secret sha512 VALUE
 password 7 VALUE
  key-string 7 VALUE
 key 7 VALUE
tacacs-server host 192.0.2.1 key 7 VALUE
radius-server host 192.0.2.1 auth-port 1812 acct-port 1813 key 7 VALUE
 server-private 192.0.2.1 key 7 VALUE
 client 192.0.2.3 server-key 7 VALUE
crypto isakmp key VALUE address 192.0.2.9
 pre-shared-key address 192.0.2.9 255.255.255.255 key VALUE
 pre-shared-key local 0 VALUE
 ip ospf authentication-key 7 VALUE
 ip ospf message-digest-key 1 md5 7 VALUE
 ip ospf message-digest-key 1 md5 VALUE
 message-digest-key 1 md5 encrypted VALUE
 authentication-key 1 md5 encrypted VALUE
  hello-password hmac-md5 encrypted VALUE
 lsp-password text encrypted VALUE
 password encrypted VALUE
snmp-server community encrypted VALUE RO
 neighbor 192.0.2.3 password 7 VALUE
 standby 1 authentication VALUE
 standby 1 authentication text VALUE
 standby 1 authentication md5 key-string VALUE
 vrrp 1 peer authentication text VALUE
    authentication text VALUE
ntp authentication-key 1 md5 VALUE 7
 ip nhrp authentication VALUE
 l2tp tunnel password 7 VALUE
 path ftp://backup:VALUE@192.0.2.1/routers
 wpa-psk ascii 0 VALUE
        encrypted-password "VALUE"; ## SECRET-DATA
        pre-shared-key ascii-text "VALUE"; ## SECRET-DATA
set system root-authentication encrypted-password "VALUE"
set system radius-server 192.0.2.1 secret "VALUE"
set system tacplus-server 192.0.2.1 secret "VALUE"
set protocols ospf area 0 interface ge-0/0/0 authentication md5 1 key "VALUE"
set protocols bgp group upstream authentication-key "VALUE"
set protocols isis level 2 authentication-key "VALUE"
set system ntp authentication-key 1 type md5 value "VALUE"
set snmp community VALUE authorization read-only
    community VALUE {
set snmp v3 usm local-engine user nms authentication-sha authentication-password "VALUE"
set security ike policy p pre-shared-key hexadecimal "VALUE"
PrivateKey = VALUE
PresharedKey=VALUE
  password "VALUE";
: PSK "VALUE"
 client_secret: VALUE
ansible_password: VALUE
ansible_become_pass: VALUE
/ppp profile add name=residential password=VALUE local-address=192.0.2.1
 authentication-key "VALUE" hash2
 + snmp-server community VALUE RO
snmp-server host 192.0.2.1 traps version 2c encrypted VALUE
snmp-server user nms OPS v3 auth sha encrypted VALUE priv aes 128 encrypted VALUE
snmp-server community-map VALUE context ops
 key-octet-string VALUE
  sap pmk VALUE
 set session-key inbound esp 256 cipher VALUE authenticator VALUE
 set session-key outbound ah 256 VALUE
 wlan psk set-key ascii 0 VALUE
   exec /usr/bin/TerminAttr -ingestauth=key,VALUE -smashexcludes=ale
set security authentication-key-chains key-chain K key 0 secret "VALUE"
set security macsec connectivity-association c pre-shared-key cak "VALUE"
            cak "VALUE"; ## SECRET-DATA
            anything "VALUE"; ## SECRET-DATA
set snmp v3 snmp-community index community-name "VALUE"
    community VALUE;
            community "VALUE" hash2 access-permissions r version v2c
            community "VALUE" hash2 r version v2c
            usm-community "VALUE" hash2 group "g"
            trap-target "t" address 192.0.2.1 snmpv2c notify-community "VALUE"
            authentication md5 VALUE privacy des-key VALUE
            authentication hmac-sha1-96 "VALUE" hash2 privacy cfb128-aes-128 "VALUE" hash2
                    md5 "VALUE"
            entry 0 key VALUE hash2 algorithm aes-128-cmac-96
            static-sa "s" authentication sha1 hex-key VALUE
                pre-shared-key 1 cak VALUE
snmp-agent target-host trap address udp-domain 192.0.2.1 params securityname cipher VALUE v2c
snmp-agent target-host trap address udp-domain 192.0.2.1 params securityname VALUE v2c
snmp-agent usm-user v3 nms authentication-mode sha cipher VALUE
snmp-agent usm-user v3 nms g authentication-mode md5 VALUE privacy-mode aes128 VALUE
 ospf authentication-mode md5 1 cipher VALUE
 ospf authentication-mode simple plain VALUE
 area-authentication-mode md5 cipher VALUE
 rip authentication-mode md5 usual cipher VALUE
 vrrp vrid 1 authentication-mode md5 VALUE
 ntp-service authentication-keyid 1 authentication-mode hmac-sha256 cipher VALUE
 radius-server shared-key-cipher VALUE
 mpls rsvp-te authentication cipher VALUE
 sa string-key inbound esp cipher VALUE
 sa encryption-hex outbound esp simple VALUE
 wpa-wpa2 psk pass-phrase VALUE aes
/snmp community add addresses=::/0 name=VALUE
set enabled=yes trap-community=VALUE
add auth-key=VALUE name=b
/routing bgp connection add tcp-md5-key=VALUE name=b
/routing rip keys add key=VALUE
/tool romon set secrets=VALUE
            community "VALUE"
set interfaces macsec macsec0 security mka cak 'VALUE'
set protocols ospf interface eth0 authentication md5 key-id 1 md5-key 'VALUE'
                        md5-key VALUE
set protocols isis area-password plaintext-password 'VALUE'
set protocols isis area-password md5 'VALUE'
                    md5 VALUE
set protocols nhrp tunnel tun0 cisco-authentication 'VALUE'
set service monitoring telegraf influxdb authentication token 'VALUE'
set pki ca a private key VALUE
-username admin privilege 15 password 7 VALUE
the device refused line 12, 'username admin password 7 VALUE', and said so
""".strip("\n").splitlines()

# A clear text runs to the end of the line, spaces included.
TO_THE_END = """
enable password VALUE
enable secret 0 VALUE
username admin privilege 15 password 0 VALUE
 password VALUE
  key-string VALUE
 key VALUE
tacacs-server key VALUE
radius-server key 0 VALUE
 neighbor 192.0.2.3 password VALUE
 ppp chap password 0 VALUE
 ppp pap sent-username isp@example.net password 0 VALUE
 isis password VALUE
domain-password VALUE
+ key VALUE
""".strip("\n").splitlines()

# Hashes show themselves wherever they stand.
HASHES = """
enable secret 5 $1$mERr$hx5rVt7rPNoS4wqbXKX7m0
enable secret 9 $9$2MJBozw/9R3UsU$2lFhcKvpghcyw8deP25GOfyZaagyUOGBymkryvOdfo6
admin:$6$tWhv9p1f$Zq.YFm1:19000:0:99999:7:::
local-user admin password irreversible-cipher $1a$Pp7xQ$ZJ2wWQ
snmp-server user nms network-operator priv 0x8a7b6c5d4e3f2a1b localizedkey
snmp-agent community read cipher %^%#Nq4.w@x%^%#
set system login user admin authentication encrypted-password "$6$u$nn.Q1/"
ospf authentication-mode md5 1 cipher %$%$Nq4.w@x%$%$
bgp peer 192.0.2.1 password cipher @%@%Nq4.w@x@%@%
""".strip("\n").splitlines()

# Nothing secret in these: they must come back as they are.
PUBLIC = """
service password-encryption
password encryption aes
key chain OSPF-KEYS
username admin nopassword
aaa authentication login default group tacacs+ local
ip ssh pubkey-chain
 ip ospf authentication message-digest
 standby 1 authentication md5 key-chain HSRP
set policy-options community CUSTOMERS members 64496:100
    from community CUSTOMERS;
 set community 64496:100 additive
    community 64496:100
 authentication-mode aaa
ssh server cipher aes256_ctr aes128_ctr
/system identity set name=edge-ber1
set system login user admin authentication ssh-rsa "ssh-rsa AAAAB3NzaC1yc2E admin@example.net"
 permit tcp any host 192.0.2.25 eq smtp
 20 deny tcp any any eq smtp
set firewall family inet filter ISP-UP4 term op25 from destination-port 25
snmp-server location Berlin, rack 7
snmp-server enable traps bgp
The password was refused for user admin
the host key of edge-ber1 is not known
iifname "ppp0" tcp dport 25 counter drop
""".strip("\n").splitlines()


@pytest.mark.parametrize("line", ONE_WORD)
def test_the_value_goes_and_the_keyword_stays(line: str) -> None:
    result = redact(line.replace("VALUE", "0822455D0A16"))
    assert "0822455D0A16" not in result
    before, after = line.split("VALUE")[0].rstrip("\"'"), line.split("VALUE")[-1].lstrip("\"'")
    assert result.startswith(before + HIDDEN)
    assert result.endswith(after)


@pytest.mark.parametrize("line", TO_THE_END)
def test_a_clear_text_goes_to_the_end_of_its_line(line: str) -> None:
    assert redact(line.replace("VALUE", "correct horse battery")) == line.replace("VALUE", HIDDEN)


@pytest.mark.parametrize("line", HASHES)
def test_a_hash_is_known_by_its_form(line: str) -> None:
    result = redact(line)
    assert HIDDEN in result
    assert not {"$5", "$6", "$1$", "$9$", "%^%#", "%$%$", "@%@%"} & {
        result[i : i + n] for i in range(len(result)) for n in (2, 3, 4)
    }


@pytest.mark.parametrize("zone", ["zen.dq.spamhaus.net", "DBL.DQ.Spamhaus.net.", "dq.spamhaus.net=127.0.0.2*3"])
def test_the_key_of_a_dnsbl_is_known_by_its_zone(zone: str) -> None:
    key = "abcdefghij0123456789klmnop"
    assert redact(f'rbl = "{key}.{zone}";') == f'rbl = "{HIDDEN}.{zone}";'
    assert redact(f"{key}.example.net {zone}") == f"{key}.example.net {zone}"
    begin = time.process_time()
    redact(f"{key}." * 40_000 + "spamhaus")
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("line", PUBLIC)
def test_what_is_public_stays(line: str) -> None:
    assert redact(line) == line


def test_a_private_key_is_hidden_whole() -> None:
    text = ["pki:", "-----BEGIN EC PRIVATE KEY-----", "MHcCAQEEIBfO", "-----END EC PRIVATE KEY-----", "hostname r1"]
    result = "\n".join(redact_lines(text))
    assert "MHcCAQEEIBfO" not in result
    assert result.startswith("pki:\n")
    assert result.endswith("\nhostname r1")


def test_the_password_of_a_url_may_hold_what_ends_others() -> None:
    assert redact("path scp://backup:p@s/s@192.0.2.1/r") == f"path scp://backup:{HIDDEN}@192.0.2.1/r"


@pytest.mark.parametrize(
    "line",
    [" md5-password cipher 192.0.2.1 VALUE", " md5-password plain all VALUE", 'community "VALUE hash2" {'],
)
def test_what_stands_beside_a_value_may_go_with_it(line: str) -> None:
    assert "Zq0a" not in redact(line.replace("VALUE", "Zq0a"))


@pytest.mark.parametrize("sign", ["", "+", " "])
def test_the_communities_below_their_menu(sign: str) -> None:
    text = """/interface bridge
add name=bridge1
/snmp community
set [ find default=yes ] addresses=192.0.2.0/24 name=Zq0a
add addresses=::/0 name="Zq0a b"
/system identity
set name=edge-ber1"""
    found = "\n".join(redact_lines(sign + line for line in text.split("\n")))
    wanted = text.replace('"Zq0a b"', HIDDEN).replace("Zq0a", HIDDEN)
    assert found == "\n".join(sign + line for line in wanted.split("\n"))


@pytest.mark.parametrize("value", ["\\\n    Zq0aZq0b", '"Zq0a\\\n    Zq0b"', '\\\n    "Zq0a\\\n    Zq0b"'])
def test_a_value_that_goes_on_in_the_next_line(value: str) -> None:
    text = f"add name=cfg wpa2-pre-shared-key={value}\n/system identity\nset name=edge-ber1"
    found = "\n".join(redact_lines(text.split("\n")))
    assert "Zq0a" not in found
    assert "Zq0b" not in found
    assert found.startswith(f"add name=cfg wpa2-pre-shared-key={HIDDEN}\\\n    {HIDDEN}")
    assert found.endswith("\n/system identity\nset name=edge-ber1")
    assert "\n".join(redact_lines(found.split("\n"))) == found


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'\\;,{}@/"), min_size=6).map(
    "Zq".__add__
)


@given(st.sampled_from(ONE_WORD + TO_THE_END), WORD)
def test_no_value_survives_whatever_it_looks_like(line: str, value: str) -> None:
    assert value not in redact(line.replace("VALUE", value))


@given(
    st.sampled_from(ONE_WORD + TO_THE_END), WORD, st.sampled_from(["'{}' is not understood", 'rejected "{}"', "({})"])
)
def test_no_value_survives_in_a_message_that_quotes_its_line(line: str, value: str, message: str) -> None:
    assert value not in redact(message.format(line.strip().replace("VALUE", value)))


@given(st.sampled_from(ONE_WORD + TO_THE_END + HASHES + PUBLIC) | st.text())
def test_a_second_pass_changes_nothing(line: str) -> None:
    assert redact(redact(line)) == redact(line)


@pytest.mark.parametrize(
    "piece", ["snmp-server host ", 'password "', "key ", "://", "auth sha ", "password=", "aes  ", "://a:", "md5 "]
)
def test_a_hostile_megabyte_takes_linear_time(piece: str) -> None:
    line = piece * (1_000_000 // len(piece))
    begin = time.process_time()
    redact(line)
    assert time.process_time() - begin < 5
