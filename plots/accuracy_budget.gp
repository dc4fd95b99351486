# accuracy_budget.gp - score against token budget, a panel per task; view v_accuracy (intervals: v_paired_item).
# x: budget k, y: score in percent, bars: 95 % interval of the paired difference to the reference (black line).
load "style.gp"
@log_x
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "token budget k per KV head" : "")
    set ylabel (is_left(p) ? "score (%)" : "")
    set yrange [panel_low[p] - room(p) < 0 ? 0 : panel_low[p] - room(p):panel_high[p] + room(p) > 104 ? 104 : \
                panel_high[p] + room(p)]
    plot for [b in panel_blocks[p]] file index int(b) using 1:3:(0):($4 - $3) with vectors heads \
             size screen 0.003, 90 linewidth 0.9 linecolor rgb colour(block_style[int(b) + 1]), \
         for [b in panel_blocks[p]] file index int(b) using 1:2 with linespoints \
             linewidth width(block_style[int(b) + 1]) dashtype dashes(block_dash[int(b) + 1]) \
             pointtype marker(block_style[int(b) + 1]) linecolor rgb colour(block_style[int(b) + 1])
    unset label
}
eval legend_place
eval clear_panel
eval legend_lines
unset multiplot
