REPLACE INTO radacct (acctsessionid,username,nasipaddress,acctstarttime,acctstoptime,framedipaddress) VALUES ('0009','carol@example.net','192.0.2.9','2026-11-26 10:00:00',NULL,'203.0.113.9');
