# speedup.gp - end-to-end speed-up of a block over exact attention by context, grouped by method; view v_speedup.
# Bars: ratio of medians; whiskers: p10 of one side over p90 of the other. The line at 1 is exact attention.
load "style.gp"
set xrange [0.5:x_tic_count + 0.5]
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set yrange [0:above(p) > 1.1 ? above(p) : 1.1]
    n = words(panel_blocks[p])
    w = 0.82 / n
    at(i) = (i - (n + 1) / 2.0) * w
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "context (tokens)" : "")
    set ylabel (is_left(p) ? "speed-up over exact" : "")
    set arrow 1 from graph 0, first 1 to graph 1, first 1 nohead dashtype 2 linecolor rgb "#000000" front
    plot for [i = 1:n] file index int(word(panel_blocks[p], i)) using ($1 + at(i)):2:(w * 0.92) with boxes \
             linecolor rgb colour(block_style[int(word(panel_blocks[p], i)) + 1]), \
         for [i = 1:n] file index int(word(panel_blocks[p], i)) using ($1 + at(i)):3:(0):($4 - $3) \
             with vectors heads size screen 0.003, 90 linewidth 0.9 linecolor rgb "#222222"
    unset label
}
eval legend_place
eval clear_panel
eval legend_boxes
unset multiplot
