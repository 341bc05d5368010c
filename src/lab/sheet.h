/* sheet.h: a table of texts, numbers and means with intervals, written in the form that is asked for. */
#ifndef TM_LAB_SHEET_H
#define TM_LAB_SHEET_H

#include "base/base.h"

/* P: a number that is shown as "< 0.001" where its digits would all be 0. */
typedef enum tm__cell_kind { TM__CELL_TEXT, TM__CELL_NUMBER, TM__CELL_MEAN, TM__CELL_P } tm__cell_kind;

typedef struct tm__cell {
    const char *text;   /* TEXT; in the sheet's arena */
    double value, half; /* NUMBER, MEAN, P: NAN where there is none */
    size_t n;           /* MEAN: of so many values */
} tm__cell;

typedef struct tm__column {
    const char *name;
    tm__cell_kind kind;
    int digits; /* behind the point */
} tm__column;

/* Cells are put row by row, as many to a row as there are columns. Starts as {0}. */
typedef struct tm__sheet {
    tm__column *columns;
    tm__cell *cells;
    size_t column_count, column_cap, cell_count, cell_cap;
    tm__arena arena;
    bool full; /* out of memory: told by tm__sheet_write */
} tm__sheet;

void tm__sheet_column(tm__sheet *sheet, const char *name, tm__cell_kind kind, int digits);
void tm__sheet_text(tm__sheet *sheet, const char *text); /* NULL: an empty cell */
void tm__sheet_number(tm__sheet *sheet, double value);
void tm__sheet_mean(tm__sheet *sheet, double mean, double half, size_t n);
size_t tm__sheet_rows(const tm__sheet *sheet);
/* form: tm_results_form. Means are "0.12 ± 0.03" for readers; CSV and JSON have columns NAME, NAME_half and NAME_n. */
tm_status tm__sheet_write(const tm__sheet *sheet, int form, tm__string *out);
void tm__sheet_release(tm__sheet *sheet);
/* A cell as readers see it. */
enum { TM__CELL_ROOM = 512 };
void tm__cell_read(const tm__column *column, const tm__cell *cell, const char *plus_minus, char text[TM__CELL_ROOM]);

#endif
