# counter_grid.gp - a counter of a method by layer and denoising step, a panel per configuration; view v_counter_grid.
# Places where nothing was counted stay white. Dark is low in every common colour vision.
legend = 92
load "style.gp"
set palette defined (0 "#2D1160", 0.25 "#721F81", 0.5 "#B63679", 0.75 "#F1605D", 1 "#FECE91")
stats file using 2 name "layer" nooutput
stats file using 3 nooutput
share = STATS_min >= 0 && STATS_max <= 1
low = share ? 0 : STATS_min < 0 ? STATS_min : 0
high = share ? 1 : STATS_max > low ? STATS_max : low + 1
set cbrange [low:high]
light(x) = x > low + 0.75 * (high - low)
set format cb "%g"
set cbtics scale 0
unset grid
set tics scale 0
set border 0
set style fill solid 1 border rgb "#ffffff"
set multiplot
do for [p = 1:panels] {
    eval place(p)
    set xrange [panel_first[p] - 0.5:panel_last[p] + 0.5]
    set yrange [layer_max + 0.5:layer_min - 0.5]   # the same in all panels
    set xtics whole(p)
    set ytics ceil((layer_max - layer_min + 1) / 12.0)
    columns_here = panel_last[p] - panel_first[p] + 1
    printed = columns_here <= 8 && columns_here * (layer_max - layer_min + 1) <= 120   # wider ones would overlap
    set title panel_title[p] font ",9"
    set xlabel (is_bottom(p) ? "denoising step (0: commit)" : "")
    set ylabel (is_left(p) ? "layer" : "")
    if (p == 1) { set colorbox vertical user origin screen 1.0 - 80.0 / W, screen 1.0 * bottom / H \
                      size screen 16.0 / W, screen 1.0 * (H - top - bottom) / H } else { unset colorbox }
    plot for [b in panel_blocks[p]] file index int(b) \
             using 1:2:($1 - 0.5):($1 + 0.5):($2 - 0.5):($2 + 0.5):3 with boxxyerror linecolor palette, \
         for [b in panel_blocks[p]] file index int(b) using 1:2:(printed && !light($3) ? sprintf("%.2g", $3) : "") \
             with labels font ",8" textcolor rgb "#FFFFFF", \
         for [b in panel_blocks[p]] file index int(b) using 1:2:(printed && light($3) ? sprintf("%.2g", $3) : "") \
             with labels font ",8" textcolor rgb "#202020"
    unset label
}
unset multiplot
