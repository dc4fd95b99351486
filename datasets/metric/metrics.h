/*
 * metrics.h - the benchmarks' metrics as functions of a prediction and one reference, each equal to the official
 * scorer's per-pair value. Private to datasets/ and its tests. Every function: MB_OK and *score in 0..1,
 * MB_E_SYSTEM when memory runs out, MB_E_SAMPLE and a sentence when this pair cannot be scored. Texts are UTF-8;
 * broken bytes count as U+FFFD.
 */
#ifndef MB_DATASETS_METRICS_H
#define MB_DATASETS_METRICS_H

#include "datasets/internal.h"
#include "datasets/read/unicode.h"

/* ---- question answering (qa.c): bag-of-words F1 after SQuAD's normalisation ---- */
int mb_metric_qa_f1(const char *prediction, const char *reference, double *score);
int mb_metric_qa_f1_zh(const char *prediction, const char *reference, double *score, mb_error *err);

/* ---- ROUGE-L (rouge.c) ---- */
/* pltrdy/rouge 1.0.1 with its set semantics: LongBench's. */
int mb_metric_rouge_l(const char *prediction, const char *reference, double *score);
int mb_metric_rouge_l_zh(const char *prediction, const char *reference, double *score, mb_error *err);
/* Plain LCS over the words of the whole text (rouge_chinese): MiniLongBench's. */
int mb_metric_rouge_l_plain(const char *prediction, const char *reference, double *score);

/* ---- labels and numbers (class.c) ---- */
int mb_metric_classification(const char *prediction, const char *reference, char *const *classes,
                             size_t class_count, double *score);
int mb_metric_count(const char *prediction, const char *reference, double *score);
/* cue: the text before the number in the reference, "Paragraph " or the Chinese one. */
int mb_metric_retrieval(const char *prediction, const char *reference, const char *cue, double *score,
                        mb_error *err);

/* ---- code (code.c) ---- */
int mb_metric_code(const char *prediction, const char *reference, double *score);
/* The same line choice with the indel ratio (what fuzzywuzzy gives where python-Levenshtein is installed). */
int mb_metric_code_indel(const char *prediction, const char *reference, double *score);

/* ---- Chinese words (jieba.c, jieba_table.c, jieba_hmm.c) ---- */
/* MB_OK when the tables are loaded (loads them on the first call); MB_E_SAMPLE and the sentence that says which
 * files were looked for and what installs them. */
int mb_jieba_ready(mb_error *err);
/* Cuts text as jieba.cut(text, cut_all=False, HMM=True) does: *ends malloc'ed, token i is text[ends[i-1],
 * ends[i]). */
int mb_jieba_cut(const uint32_t *text, size_t count, size_t **ends, size_t *token_count, mb_error *err);

/* ---- scoring by containment (contain.c) ---- */
/* str.lower() of the text; broken UTF-8 becomes U+FFFD. NULL: out of memory. */
char *mb_text_lower(const char *text);
/* Fraction of the answers that occur in the prediction, both lower-cased; any: 1 when one of them does. */
int mb_contains_score(const mb_sample *sample, const char *prediction, bool any, double *score);
/* |words of the prediction that are words of the answer| / words of the answer (the figures of DuoAttention and
 * PyramidKV), mean over answers. Words by white space, lower-cased; the numerator counts distinct words, the
 * denominator all. */
int mb_keyword_score(const mb_sample *sample, const char *prediction, double *score);
/* Digits of each answer found at their place in the best digit run of the prediction / its digits, mean. */
int mb_digit_score(const mb_sample *sample, const char *prediction, double *score);

/* The part of a prediction that few-shot tasks are scored on: leading newlines dropped, then the first line.
 * Returns its start, *length its bytes. */
const char *mb_first_line(const char *prediction, size_t *length);

#endif
