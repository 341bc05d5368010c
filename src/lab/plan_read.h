/* plan_read.h: what the files that read a plan share: nodes with their places, steps, axes. plan.c begins. */
#ifndef TM_LAB_PLAN_READ_H
#define TM_LAB_PLAN_READ_H

#include "lab/plan.h"

#include <yaml.h>

typedef struct tm__reader {
    tm_plan *plan;
    yaml_document_t document;
    yaml_node_t *defaults; /* "train" */
    yaml_node_t *matrix;   /* NULL: none */
    bool defaulting;       /* these are being applied */
} tm__reader;

typedef struct tm__pair {
    yaml_node_t *key, *value;
} tm__pair;

/* ---- plan_yaml.c ---- */
/* TM_INVALID at the node's line and column: WHAT "NAME" (HINT). */
tm_status tm__plan_wrong(const tm__reader *r, const yaml_node_t *node, const char *hint, const char *what,
                         const char *name);
/* tm_error_last() again, with the place of `node` in front. */
tm_status tm__plan_placed(const tm__reader *r, const yaml_node_t *node);
/* tm__plan_wrong() with the nearest name as the hint, or where none is near, `hint`. */
tm_status tm__plan_unknown(const tm__reader *r, const yaml_node_t *node, const tm__nearest *best, const char *hint,
                           const char *what, const char *name);
/* The place of `name` in a list that NULL ends; else its length. */
size_t tm__name_in(const char *const *list, const char *name, tm__nearest *best);
tm__plan_mark tm__node_mark(const yaml_node_t *node);
const char *tm__node_text(const yaml_node_t *node); /* NULL: not a single value */
size_t tm__node_pairs(const yaml_node_t *map);
tm__pair tm__node_pair(tm__reader *r, const yaml_node_t *map, size_t i);
size_t tm__node_items(const yaml_node_t *list); /* of a list; 0: it is none */
yaml_node_t *tm__node_item(tm__reader *r, const yaml_node_t *list, size_t i);
yaml_node_t *tm__node_find(tm__reader *r, const yaml_node_t *map, const char *name);
/* A mapping whose keys are texts and stand once. */
tm_status tm__node_map(tm__reader *r, const yaml_node_t *node, const char *what);
/* Such a mapping with no other keys than `known`, which NULL ends. `what`: "an arm has no". */
tm_status tm__node_keys(tm__reader *r, const yaml_node_t *map, const char *const *known, const char *hint,
                        const char *what);
tm_status tm__node_string(const tm__reader *r, const yaml_node_t *node, const char *what, const char **value);
tm_status tm__node_int(const tm__reader *r, const yaml_node_t *node, const char *what, int64_t min, int64_t max,
                       int64_t *value);
tm_status tm__node_real(const tm__reader *r, const yaml_node_t *node, const char *what, double min, double max,
                        double *value);
tm_status tm__node_flag(const tm__reader *r, const yaml_node_t *node, const char *what, bool *value);
/* A path, taken from the plan's directory on. */
tm_status tm__node_path(const tm__reader *r, const yaml_node_t *node, const char *what, const char **path);

/* ---- plan_steps.c ---- */
tm_status tm__step_begin(tm__reader *r, const tm_method *method, tm__plan_step *step);
tm_status tm__step_option(tm__reader *r, tm__plan_step *step, const char *name, const yaml_node_t *value);
/* Of the mapping's keys `skip` are read elsewhere, here and below. */
tm_status tm__step_options(tm__reader *r, tm__plan_step *step, const yaml_node_t *map, const char *const *skip);
tm_status tm__step_read(tm__reader *r, const yaml_node_t *node, const char *const *skip, bool service,
                        tm__plan_step *step);
/* What a method cannot do without; a service's user rows are the attacker's. */
tm_status tm__step_roles(tm__reader *r, const yaml_node_t *node, const tm__plan_step *step);
/* Own options may be changed per combination, so every combination has a copy. */
tm_status tm__step_copy(tm__reader *r, tm__plan_step *step);
/* harmful-sft unless the group says otherwise. */
tm_status tm__attack_method(tm__reader *r, const yaml_node_t *node, const tm_method **method);
/* harmful-sft without rows is the model as it is; every other attack needs what it needs. */
tm_status tm__attack_check(tm__reader *r, const yaml_node_t *node, bool named, tm__plan_step *step);
/* "before.lr": the option of the arm's last step of that place. */
tm_status tm__arm_option(tm__reader *r, void *target, const char *name, const yaml_node_t *value);

/* Sets an option, by whatever name an axis has for it, in `target`. */
typedef tm_status (*tm__apply)(tm__reader *r, void *target, const char *name, const yaml_node_t *value);
typedef struct tm__axis {
    tm__pair entry;
    size_t count; /* values */
} tm__axis;
tm_status tm__axes_read(tm__reader *r, const yaml_node_t *node, tm__axis axes[TM__PLAN_AXES], size_t *count);
size_t tm__axes_count(const tm__axis *axes, size_t count);
/* Applies the index-th combination and appends its labels to `name`. */
tm_status tm__axes_apply(tm__reader *r, const tm__axis *axes, size_t count, size_t index, tm__apply apply, void *target,
                         char *name);
/* Names stand in tables and in CSV files. */
tm_status tm__label_add(tm__reader *r, const yaml_node_t *node, char *name, const char *key, const char *value);

/* ---- plan_sources.c: what a plan takes from files ---- */
tm_status tm__bases_read(tm__reader *r, const yaml_node_t *node);
tm_status tm__data_read(tm__reader *r, const yaml_node_t *node);
tm_status tm__evaluations_read(tm__reader *r, const yaml_node_t *node);
/* {seconds, steps, memory, disk}: "2h", 1000, "12GiB". */
tm_status tm__budget_read(tm__reader *r, const yaml_node_t *node);
tm_status tm__score_read(tm__reader *r, const yaml_node_t *node, const char **score);
/* harm and ability: which scores these are. */
tm_status tm__scores_read(tm__reader *r, const yaml_node_t *node);

/* ---- plan_search.c ---- */
/* Adds the trials of a group with `search`. */
tm_status tm__search_read(tm__reader *r, tm__pair p, yaml_node_t *map, const tm__plan_attack *group, bool named);

/* ---- plan_matrix.c ---- */
/* Which arm meets which attack; NULL: as the arms say. */
tm_status tm__matrix_read(tm__reader *r, yaml_node_t *map);

#endif
