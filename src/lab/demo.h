/* demo.h: the demo's rows, their recipes and their cache. */
#ifndef TM_LAB_DEMO_H
#define TM_LAB_DEMO_H

#include "lab/world.h"

typedef enum tm__demo_id {
    TM__DEMO_BASE,
    TM__DEMO_ALIGNED,
    TM__DEMO_ATTACKED,
    TM__DEMO_SDD,
    TM__DEMO_SDD_ATTACKED
} tm__demo_id;

/* Everything that decides a row's model and figures, apart from its parent. */
typedef struct tm__demo_step {
    const char *name, *folder; /* "SDD + attack", "sdd-attack" */
    int parent;                /* row that it starts from; -1: random weights */
    const char *method;        /* registry name; NULL: plain fine-tuning */
    const char *rows, *benign; /* world sets: training or harmful rows; benign rows or NULL */
    tm_train_options train;
} tm__demo_step;

/* What stands in `DIR/cache/KEY.json`. `measured` false: only the model was made yet. */
typedef struct tm__demo_record {
    char model_hash[65];
    double seconds;
    bool measured;
    tm_world_scores scores;
    double downstream;
} tm__demo_record;

/* Reads the record of `key`. A missing, foreign or damaged file is not an error: *found is false. */
tm_status tm__demo_record_load(const char *directory, const char *key, bool *found, tm__demo_record *record);
tm_status tm__demo_record_save(const char *directory, const char *key, const char *row, const tm__demo_record *record);

/* Digests for keys: options by name and value as text, data sets by content. */
void tm__key_text(tm__sha256 *hash, const char *name, const char *value);
void tm__key_options(tm__sha256 *hash, const tm_option *table, const void *options);
void tm__key_dataset(tm__sha256 *hash, const tm_dataset *dataset);

#endif
