/* page.h: a report as an HTML page with its tables and pictures as files beside it. */
#ifndef TM_LAB_PAGE_H
#define TM_LAB_PAGE_H

#include "lab/plot.h"
#include "lab/sheet.h"

/* Texts are put as they are (`put`) or with HTML's characters escaped. */
typedef struct tm__page {
    tm__string text;
    const char *directory; /* where the files go */
    const tm_monitor *monitor;
    bool ok, pictures; /* ok: memory has sufficed; pictures: gnuplot is there */
} tm__page;

void tm__page_put(tm__page *page, const char *text);
void tm__page_escaped(tm__page *page, const char *text);
void tm__page_printf(tm__page *page, const char *format, ...) TM__PRINTF(2, 3); /* not escaped */
void tm__page_begin(tm__page *page, const char *title);                         /* up to the first heading */
void tm__page_heading(tm__page *page, const char *title);
void tm__page_paragraph(tm__page *page, const char *text);
/* A line of a list between <dl> and </dl>. */
void tm__page_fact(tm__page *page, const char *name, const char *text);
/* The table in the page, and as NAME.csv and NAME.tex. A sheet without rows leaves nothing. shaded: cells are darker
 * the nearer their value is to 1, or to the largest where that is more. */
tm_status tm__page_table(tm__page *page, const char *title, const char *about, const tm__sheet *sheet, bool shaded,
                         const char *name);
/* Draws PATH.svg, PATH.png and PATH.gp; TM_UNSUPPORTED: gnuplot is not there. */
typedef tm_status tm__page_draw(const void *user, const char *path);
tm_status tm__page_picture(tm__page *page, const char *title, const char *about, tm__page_draw *draw, const void *user,
                           const char *name);
/* The picture in the page, and as NAME.svg, NAME.png and NAME.gp. */
tm_status tm__page_plot(tm__page *page, const char *title, const char *about, const tm__plot *plot, const char *name);
/* "KIND-GROUP" with '-' for all but letters and digits. */
void tm__page_file_name(const char *kind, const char *group, char name[96]);

#endif
