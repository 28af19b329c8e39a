-- SPDX-License-Identifier: Apache-2.0
--
-- What the ledger clients write: a row a transaction, and each client's count of
-- them. The index of the ledger is not unique: a transaction that is there twice
-- must be seen, not refused.
CREATE EXTENSION amcheck;
CREATE TABLE ledger (client int, seq int, nonce text);
CREATE INDEX ON ledger (client, seq);
CREATE TABLE total (client int PRIMARY KEY, seq int);
INSERT INTO total SELECT n, 0 FROM generate_series(1, 16) n;
