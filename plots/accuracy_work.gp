# accuracy_work.gp - score against measured attention work; view v_accuracy (intervals from v_paired_item).
# x: prefix tokens read to attend and to select, share of exact's; y: score in percent, mean over tasks; bars: 95 %
# interval of the paired difference to the reference.
load "style.gp"
set xrange [x_min - x_room:x_max + x_room]
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "attention work: prefix tokens read to attend and to select, share of exact" : "")
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
