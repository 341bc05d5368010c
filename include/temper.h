/* temper.h: make open-weight language models hard to corrupt by fine-tuning.
 *
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <temper.h>
 *
 *     int main(void) {
 *         tm_device *device = NULL;
 *         tm_model *model = NULL;
 *         tm_tokenizer *tokenizer = NULL;
 *         char *answer = NULL;
 *         tm_device_options where = {.name = "cpu"};
 *         tm_generate_options how = {.max_new_tokens = 64};
 *         const tm_message ask[] = {{"user", "How do I bake a brimble cake?"}};
 *
 *         tm_status status = tm_device_open(&where, &device);
 *         if (status == TM_OK) status = tm_model_load(device, "my-model", NULL, &model);
 *         if (status == TM_OK) status = tm_tokenizer_load("my-model", &tokenizer);
 *         if (status == TM_OK) status = tm_generate_chat(model, tokenizer, TM_CHAT_AUTO, ask, 1, &how, &answer);
 *         if (status == TM_OK)
 *             puts(answer);
 *         else
 *             fprintf(stderr, "%s\n", tm_error_last()->line);
 *         free(answer);
 *         tm_tokenizer_free(tokenizer);
 *         tm_model_free(model);
 *         tm_device_close(device);
 *         return tm_status_exit_code(status);
 *     }
 *
 * Conventions
 * -----------
 * - A function that can fail returns tm_status. On failure it has written nothing to its outputs, has released
 *   what it took, and has left a detail (what, which file, which field, what to do) in tm_error_last().
 * - The library never prints, exits or aborts on what a file or a user supplies. Asserts guard our own mistakes.
 * - `tm_x_free(NULL)` is allowed everywhere. Strings and arrays that a function hands out belong to the caller and are
 *   released with free(), unless stated otherwise.
 * - An options pointer may be NULL: the defaults of its option table are then used. Fill an options struct with
 *   tm_options_default() before changing fields of it. In options of devices, generation and saving a field that is
 *   left 0 or NULL means its default too.
 * - Objects are not locked: use one object from one thread at a time. Different objects may be used concurrently,
 *   except that models on the same tm_device share its threads.
 * - Shapes are written (rows, columns), row-major. Text is UTF-8.
 * - Everything is deterministic: the same inputs, seed and instruction set give the same bytes for every thread count.
 *
 * What lies where
 * ---------------
 * temper_base.h       status and errors, option tables, watching a run, devices
 * temper_tokenizer.h  tokenizers, streaming decode, chats and their templates
 * temper_data.h       rows of conversations, provenance
 * temper_model.h      models, adapters, training, generation, cross-entropy
 * temper_method.h     defences and attacks, and their options
 * temper_ranks.h      training by several processes (MPI)
 * temper_encoder.h    BERT and DeBERTa: sentence embeddings, classifiers
 * temper_judge.h      judges of answers: lists of refusals, classifiers, models that write a verdict
 * temper_eval.h       suites: general ability, fine-tuned tasks, with the numbers that papers report
 * temper_represent.h  hidden states of prompts: principal components, linear probes
 * temper_lab.h        the built-in world, plans of experiments, training judges
 * temper_bench.h      measuring: products, training steps, generation, loading, tokenizing, evaluation
 * This file includes all of them; each may also be included by itself.
 */
#ifndef TEMPER_H
#define TEMPER_H

#include "temper_base.h"
#include "temper_bench.h"
#include "temper_data.h"
#include "temper_encoder.h"
#include "temper_eval.h"
#include "temper_judge.h"
#include "temper_lab.h"
#include "temper_method.h"
#include "temper_model.h"
#include "temper_ranks.h"
#include "temper_represent.h"
#include "temper_tokenizer.h"

#endif
