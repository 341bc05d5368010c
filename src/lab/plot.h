/* plot.h: pictures by gnuplot: a script that is kept, an SVG and a PNG. */
#ifndef TM_LAB_PLOT_H
#define TM_LAB_PLOT_H

#include "base/base.h"

typedef enum tm__mark { TM__MARK_POINT, TM__MARK_LINE, TM__MARK_STEP, TM__MARK_FRONT } tm__mark;

/* (n) points; NAN is left out. A FRONT is a thin broken line. */
typedef struct tm__series {
    const char *label;
    tm__mark mark;
    const double *x, *y;
    size_t n;
} tm__series;

/* Values in a grid, darker where there is more; NAN: an empty field. */
typedef struct tm__heat {
    const char *const *row_names, *const *column_names;
    const double *values; /* (rows, columns) */
    size_t rows, columns;
} tm__heat;

typedef struct tm__plot {
    const char *x, *y;              /* what the axes show */
    bool log_x, share_x, share_y;   /* share: from 0 to 1 */
    bool log_y, from_zero, whole_x; /* from_zero: y begins at 0; whole_x: x has whole numbers */
    const tm__series *series;
    size_t count;
    const struct tm__heat *heat; /* instead of series; x and y may be NULL then */
} tm__plot;

/* Text in gnuplot's single quotes. false: out of memory. */
bool tm__plot_quote(tm__string *out, const char *text);
/* Writes PATH.gp, PATH.svg (width, height) and PATH.png (half as much again) from gnuplot's commands; the colours have
 * the names ink and c0 .. c7. TM_UNSUPPORTED: gnuplot is not installed (the script is there). */
tm_status tm__plot_script(const char *body, int width, int height, const char *path);
/* Writes PATH.gp, PATH.svg and PATH.png. TM_UNSUPPORTED: gnuplot is not installed (the script is there). */
tm_status tm__plot_draw(const tm__plot *plot, const char *path);
/* Appends an SVG that tm__plot_draw wrote as part of a page: colours are the page's variables --ink, --paper, --c0
 * ..., --heat. */
tm_status tm__plot_inline(const char *path, const char *label, tm__string *out);

#endif
