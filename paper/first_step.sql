-- What the first forward of a block costs over the reference's, in percent, and what a later one gains.
SELECT 'first step more than exact in percent, ' || method || ', ' || context, round(100 * (1 / speedup - 1), 2)
FROM v_speedup WHERE phase = 'first_step' AND is_reference = 0
UNION ALL
SELECT 'later step over exact, ' || method || ', ' || context, round(speedup, 3)
FROM v_speedup WHERE phase = 'later_step' AND is_reference = 0
