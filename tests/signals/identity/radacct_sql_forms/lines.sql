INSERT INTO radacct
  (acctsessionid,username,nasipaddress,acctstarttime,acctstoptime,framedipaddress)
VALUES
  ('00010','dave@example.net','192.0.2.10','2026-11-26 10:00:00',NULL,'203.0.113.10');
