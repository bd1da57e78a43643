CREATE TABLE radacct
(
  acctsessionid text,
  username text,
  nasipaddress text,
  acctstarttime text,
  acctstoptime text,
  framedipaddress text
);
INSERT INTO radacct VALUES ('0008','bob@example.net','192.0.2.8','2026-11-26 10:00:00',NULL,'203.0.113.8');
