--
-- PostgreSQL database dump
--
CREATE TABLE public.nas (
    id integer NOT NULL,
    secret text
);
COPY public.nas (id, secret) FROM stdin;
1	acctstarttime
\.
COPY public.radacct (radacctid, acctsessionid, acctuniqueid, username, nasipaddress, acctstarttime, acctupdatetime, acctstoptime, framedipaddress) FROM stdin;
1	0001	a1	alice@example.net	192.0.2.1	2026-11-26 10:00:00+00	\N	\N	203.0.113.7
2	0002	a2	EXAMPLE\\bob	192.0.2.1	2026-11-26 10:00:00+00	\N	\N	203.0.113.8
\.
