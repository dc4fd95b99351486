-- Every stored value but times, memory and machine. Two runs with one seed give the same rows, also when one of
-- them was killed and resumed:
--     diff <(sqlite3 a.db < results/queries/content.sql) <(sqlite3 b.db < results/queries/content.sql)
SELECT relation, key, value FROM v_content ORDER BY relation, key, value;
