-- MySQL dump 10.13
CREATE TABLE `radacct` (
  `radacctid` bigint(21) NOT NULL AUTO_INCREMENT,
  `acctsessionid` varchar(64) NOT NULL DEFAULT '',
  `username` varchar(64) NOT NULL DEFAULT '',
  `nasipaddress` varchar(15) NOT NULL DEFAULT '',
  `acctstarttime` datetime DEFAULT NULL,
  `acctstoptime` datetime DEFAULT NULL,
  `framedipaddress` varchar(15) NOT NULL DEFAULT '',
  PRIMARY KEY (`radacctid`),
  UNIQUE KEY `acctuniqueid` (`acctsessionid`)
) ENGINE=InnoDB;
INSERT INTO `radacct` VALUES (1,'0001','alice@example.net','192.0.2.1','2026-11-26 11:00:00','2026-11-26 11:30:00','203.0.113.7'),(2,'0002','EXAMPLE\\o\'bob, jr','192.0.2.1','2026-11-26 11:00:00',NULL,'203.0.113.8');
