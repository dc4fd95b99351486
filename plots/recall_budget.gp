# recall_budget.gp - recall against token budget: attention mass, share of the exact top k; view v_recall_config.
load "style.gp"
@log_x
set yrange [0:1.02]
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "token budget k per KV head" : "")
    set ylabel (is_left(p) ? "recall" : "")
    plot for [b in panel_blocks[p]] file index int(b) using 1:2 with linespoints \
             linewidth width(block_style[int(b) + 1]) dashtype dashes(block_dash[int(b) + 1]) \
             pointtype marker(block_style[int(b) + 1]) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_lines
unset multiplot
