/*
 * e.c - LongBench-E: 13 tasks of LongBench with rows chosen evenly over lengths, scored apart in three
 * buckets. File <task>_e.jsonl, prompts, limits and metrics are LongBench's (longbench.c).
 */
#include "datasets/internal.h"

#define ROW(task, what, tongue, how, wrap)                                                                        \
    {                                                                                                             \
        .name = task, .benchmark = "longbench_e", .category = what, .language = tongue, .metric = how,            \
        .chat = wrap                                                                                              \
    }

static mb_task_info rows[] = {
    ROW("qasper_e", "single-doc QA", "en", "qa_f1", true),
    ROW("multifieldqa_en_e", "single-doc QA", "en", "qa_f1", true),
    ROW("hotpotqa_e", "multi-doc QA", "en", "qa_f1", true),
    ROW("2wikimqa_e", "multi-doc QA", "en", "qa_f1", true),
    ROW("gov_report_e", "summarization", "en", "rouge_l", true),
    ROW("multi_news_e", "summarization", "en", "rouge_l", true),
    ROW("trec_e", "few-shot learning", "en", "classification", false),
    ROW("triviaqa_e", "few-shot learning", "en", "qa_f1", false),
    ROW("samsum_e", "few-shot learning", "en", "rouge_l", false),
    ROW("passage_count_e", "synthetic", "en", "count", true),
    ROW("passage_retrieval_en_e", "synthetic", "en", "retrieval", true),
    ROW("lcc_e", "code completion", "code", "code_sim", false),
    ROW("repobench-p_e", "code completion", "code", "code_sim", false),
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static void prepare(void)
{
    mb_longbench_limits(rows, ROW_COUNT);
}

const mb_task_family mb_family_longbench_e = {
    .name = "longbench_e",
    .rows = rows,
    .row_count = ROW_COUNT,
    .template_bytes = mb_longbench_template_bytes,
    .open = mb_longbench_open,
    .next = mb_longbench_next,
    .hash = mb_task_rows_hash,
    .size = mb_task_rows_size,
    .close = mb_longbench_close,
    .score = mb_longbench_score,
    .prepare = prepare,
};
