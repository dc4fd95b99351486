# selection.gp - where the selected keys of one item lie, a panel per configuration; view v_selection.
# Layers by position: a cell is the share of its keys that KV heads and forwards selected; a row without cells reads all.
legend = 92
load "style.gp"
set palette defined (0 "#ffffff", 0.15 "#cfe1f2", 0.5 "#4a90c8", 1 "#08306b")
unset grid
set tics scale 0
set border 1
set style fill solid 1 noborder
set yrange [y_tic_count + 0.5:0.5]
eval "set xtics ".x_tics." rotate by 90 right font ',8'"
eval "set ytics ".y_tics
set cbrange [0:*]
set cbtics format "%.0f %%" scale 0
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set title panel_title[p]
    set xlabel (is_bottom(p) ? "position in the prefix (tokens)" : "")
    set ylabel (is_left(p) ? "layer" : "")
    set xrange [0.5:*]
    if (p == 1) { set colorbox vertical user origin screen 1.0 - 80.0 / W, screen 1.0 * bottom / H \
                      size screen 16.0 / W, screen 1.0 * (H - top - bottom) / H } else { unset colorbox }
    plot for [b in panel_blocks[p]] file index int(b) \
             using (block_style[int(b) + 1] == 0 ? $1 : NaN):2:($1 - 0.5):($1 + 0.5):($2 - 0.5):($2 + 0.5):(100 * $3) with boxxyerror linecolor palette, \
         for [b in panel_blocks[p]] file index int(b) \
             using (block_style[int(b) + 1] == 1 ? $1 : NaN):(0.5):(0):(y_tic_count) \
             with vectors nohead linecolor rgb "#d62728" linewidth 1
    unset label
}
unset multiplot
