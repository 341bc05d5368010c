/* represent_plot.h: pictures of a comparison of hidden states. */
#ifndef TM_LAB_REPRESENT_PLOT_H
#define TM_LAB_REPRESENT_PLOT_H

#include "eval/represent.h"
#include "lab/plot.h"

/* PATH.gp, PATH.svg, PATH.png as tm__plot_script writes them: a panel per model (down) and layer (across, at most six,
 * evenly spread over those in which states vary), of the first two components. */
tm_status tm__represent_plot_components(const tm_representation *r, const char *path);
/* Accuracy of the probe over layers, with intervals, and its control. */
tm_status tm__represent_plot_probe(const tm_representation *r, const char *path);

#endif
