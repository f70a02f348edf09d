-- The mean as a code, and each bucket in a column of its own: see headwatch_heads_1m.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_1m_view TO headwatch_heads_1m AS
SELECT
    time, service, instance, model, stratum, route, phase, context_band, feature, layer, head, weight,
    if(total > 0, toUInt16(least(65534, greatest(0, round(-1024 * log2(total / weight))))), 65535) AS mean_code,
    zero_count,
    buckets[1] AS b00, buckets[2] AS b01, buckets[3] AS b02, buckets[4] AS b03, buckets[5] AS b04, buckets[6] AS b05,
    buckets[7] AS b06, buckets[8] AS b07, buckets[9] AS b08, buckets[10] AS b09, buckets[11] AS b10, buckets[12] AS b11,
    buckets[13] AS b12, buckets[14] AS b13, buckets[15] AS b14, buckets[16] AS b15, buckets[17] AS b16, buckets[18] AS b17,
    buckets[19] AS b18, buckets[20] AS b19, buckets[21] AS b20, buckets[22] AS b21, buckets[23] AS b22, buckets[24] AS b23,
    buckets[25] AS b24, buckets[26] AS b25, buckets[27] AS b26, buckets[28] AS b27, buckets[29] AS b28, buckets[30] AS b29,
    buckets[31] AS b30, buckets[32] AS b31, buckets[33] AS b32, buckets[34] AS b33, buckets[35] AS b34, buckets[36] AS b35,
    buckets[37] AS b36, buckets[38] AS b37, buckets[39] AS b38, buckets[40] AS b39, buckets[41] AS b40, buckets[42] AS b41,
    buckets[43] AS b42, buckets[44] AS b43, buckets[45] AS b44, buckets[46] AS b45, buckets[47] AS b46, buckets[48] AS b47,
    buckets[49] AS b48, buckets[50] AS b49, buckets[51] AS b50, buckets[52] AS b51, buckets[53] AS b52, buckets[54] AS b53,
    buckets[55] AS b54, buckets[56] AS b55, buckets[57] AS b56, buckets[58] AS b57, buckets[59] AS b58, buckets[60] AS b59,
    buckets[61] AS b60, buckets[62] AS b61, buckets[63] AS b62, buckets[64] AS b63
FROM headwatch_head_points;
