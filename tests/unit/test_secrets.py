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
/ppp profile add name=residential password=VALUE local-address=192.0.2.1
 authentication-key "VALUE" hash2
 + snmp-server community VALUE RO
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
    before, after = line.split("VALUE")[0].rstrip('"'), line.split("VALUE")[-1].lstrip('"')
    assert result.startswith(before + HIDDEN)
    assert result.endswith(after)


@pytest.mark.parametrize("line", TO_THE_END)
def test_a_clear_text_goes_to_the_end_of_its_line(line: str) -> None:
    assert redact(line.replace("VALUE", "correct horse battery")) == line.replace("VALUE", HIDDEN)


@pytest.mark.parametrize("line", HASHES)
def test_a_hash_is_known_by_its_form(line: str) -> None:
    result = redact(line)
    assert HIDDEN in result
    assert not {"$5", "$6", "$1$", "$9$", "%^%#"} & {result[i : i + n] for i in range(len(result)) for n in (2, 3, 4)}


@pytest.mark.parametrize("line", PUBLIC)
def test_what_is_public_stays(line: str) -> None:
    assert redact(line) == line


def test_a_private_key_is_hidden_whole() -> None:
    text = ["pki:", "-----BEGIN EC PRIVATE KEY-----", "MHcCAQEEIBfO", "-----END EC PRIVATE KEY-----", "hostname r1"]
    result = "\n".join(redact_lines(text))
    assert "MHcCAQEEIBfO" not in result
    assert result.startswith("pki:\n")
    assert result.endswith("\nhostname r1")


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


@pytest.mark.parametrize("piece", ["snmp-server host ", 'password "', "key ", "://", "auth sha ", "password=", "aes  "])
def test_a_hostile_megabyte_takes_linear_time(piece: str) -> None:
    line = piece * (1_000_000 // len(piece))
    begin = time.process_time()
    redact(line)
    assert time.process_time() - begin < 5
