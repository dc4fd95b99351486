# tpob_steps.gp - time per output block against denoising steps per block, log-log; view v_latency (phase block).
load "style.gp"
@log_x
set logscale y 10
set ytics @log_tics
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set yrange [panel_low[p] / 1.15:panel_high[p] * 1.2]
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "denoising steps per block" : "")
    set ylabel (is_left(p) ? "time per output block (ms)" : "")
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
