# style.gp - what all figures share: terminals, fonts, the colour and marker of a method, the frame of panels.
#
# A figure's script is called with -e "name='...'; format='png'" and loads this file, which loads NAME.vars (titles,
# panels, series; written by the program). Run by hand in the data folder, it draws PNG.

if (!exists("format")) format = "png"
set encoding utf8
load name.".vars"
file = name.".dat"

# Colours that are told apart with every common colour vision (Okabe and Ito, then Tol); black is the reference's.
array palette[15] = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#882255", "#999933", \
                     "#332288", "#44AA99", "#AA4499", "#DDAA33", "#117733", "#CC6677", "#777777"]
array markers[9] = [5, 9, 13, 11, 15, 4, 8, 12, 10]
array parts[10] = ["#332288", "#88CCEE", "#44AA99", "#117733", "#DDCC77", "#CC6677", "#AA4499", "#999933", \
                   "#882255", "#BBBBBB"]
colour(style) = style >= 100 ? parts[(style - 100) % 10 + 1] : \
                style == 0 ? "#000000" : palette[(style - 1) % 15 + 1]
marker(style) = style == 0 ? 7 : markers[(style - 1) % 9 + 1]
width(style) = style == 0 ? 2.2 : 1.6
# 1 a method, 2 an oracle, 3 the reference, 4 a further curve of a method
dashes(dash) = dash == 2 ? 2 : dash == 3 ? 4 : dash == 4 ? 3 : 1

# Panels: a grid left of the legend. All distances in pixels of the SVG.
columns = panels <= 1 ? 1 : panels <= 4 ? 2 : panels <= 9 ? 3 : panels <= 16 ? 4 : 5
rows = (panels + columns - 1) / columns
if (!exists("panel_width")) panel_width = columns == 1 ? 620 : columns == 2 ? 430 : columns == 3 ? 330 : 260
if (!exists("panel_height")) panel_height = columns == 1 ? 400 : columns == 2 ? 300 : columns == 3 ? 240 : 190
if (!exists("gap_x")) gap_x = 62
if (!exists("gap_y")) gap_y = 66
if (!exists("left")) left = 84
if (!exists("bottom")) bottom = 64
if (figure_note ne "") bottom = bottom + 14
if (figure_footnote ne "") bottom = bottom + 14
if (!exists("legend")) legend = keys > 0 ? 62 + 7.6 * key_columns : 24
top = figure_stamp eq "" ? 92 : 114
W = left + columns * panel_width + (columns - 1) * gap_x + legend
W = W < 760 ? 760 : W
H = top + rows * panel_height + (rows - 1) * gap_y + bottom
if (format eq "png") {
    set terminal pngcairo noenhanced size 2 * W, 2 * H font "DejaVu Sans,10" fontscale 2 linewidth 2 pointscale 1.7
}
if (format eq "pdf") {
    set terminal pdfcairo noenhanced size W / 96.0, H / 96.0 font "DejaVu Sans,12.5" fontscale 0.75 linewidth 1.1
    set pointsize 0.6
}
if (format eq "svg") {
    set terminal svg noenhanced size W, H font "DejaVu Sans,12.5" background "#ffffff" linewidth 1.1
    set pointsize 0.75
}
set output "../".name.".".format

frame = "set lmargin at screen %f; set rmargin at screen %f; set tmargin at screen %f; set bmargin at screen %f"
place(p) = sprintf(frame, \
    1.0 * (left + ((p - 1) % columns) * (panel_width + gap_x)) / W, \
    1.0 * (left + ((p - 1) % columns) * (panel_width + gap_x) + panel_width) / W, \
    1.0 - 1.0 * (top + ((p - 1) / columns) * (panel_height + gap_y)) / H, \
    1.0 - 1.0 * (top + ((p - 1) / columns) * (panel_height + gap_y) + panel_height) / H)
is_left(p) = (p - 1) % columns == 0
is_bottom(p) = p + columns > panels

# Title, caption and the stamp of a failed gate, in the page's corner.
set label 1 figure_title at screen 18.0 / W, 1 - 24.0 / H font ",15" front
small = 6.2 * strlen(figure_caption) > W - 30 ? 10.0 * (W - 30) / (6.2 * strlen(figure_caption)) : 10
set label 2 figure_caption at screen 18.0 / W, 1 - 48.0 / H font sprintf(",%.1f", 0.82 * small) \
    textcolor rgb "#555555" front
under = figure_footnote eq "" ? 10.0 : 24.0
if (figure_note ne "") set label 4 figure_note at screen 18.0 / W, under / H font ",8" textcolor rgb "#555555" front
fine = 5.0 * strlen(figure_footnote) > W - 30 ? 8.0 * (W - 30) / (5.0 * strlen(figure_footnote)) : 8
if (figure_footnote ne "") set label 5 figure_footnote at screen 18.0 / W, 10.0 / H font sprintf(",%.1f", fine) \
    textcolor rgb "#555555" front
if (figure_stamp ne "") set label 3 figure_stamp at screen 18.0 / W, 1 - 70.0 / H font ",11" \
    textcolor rgb "#C00000" front

set border 3 linecolor rgb "#444444"
set tics nomirror out scale 0.6 textcolor rgb "#222222"
set grid ytics linetype 1 linecolor rgb "#DCDCDC" linewidth 0.6 dashtype 1
set key off
set title offset 0, -0.6 font ",11"
set style fill solid 0.85 noborder
set bars 0.6
if (x_tics ne "()") eval "set xtics ".x_tics

# The legend stands in a strip of its own; call after the last panel with the kind of sample to show.
legend_place = sprintf(frame, \
    1.0 - (legend - 12.0) / W, 1.0 - 4.0 / W, 1.0 - 1.0 * (top - 8) / H, 1.0 * bottom / H)
clear_panel = "unset title; unset xlabel; unset ylabel; unset xtics; unset ytics; unset border; unset grid; " \
    ."unset logscale; unset label; unset arrow; unset object; set xrange [0:1]; set yrange [0:1]; " \
    ."set key at graph 0, graph 1 left top Left reverse samplen 2.2 spacing 1.25 width 0"
legend_lines = "plot for [i = 1:keys] NaN with linespoints linewidth width(key_style[i]) " \
    ."dashtype dashes(key_dash[i]) pointtype marker(key_style[i]) linecolor rgb colour(key_style[i]) title key_title[i]"
legend_plain = "plot for [i = 1:keys] NaN with lines linewidth width(key_style[i]) dashtype dashes(key_dash[i]) " \
    ."linecolor rgb colour(key_style[i]) title key_title[i]"
legend_boxes = "plot for [i = 1:keys] NaN with boxes linecolor rgb colour(key_style[i]) title key_title[i]"

# Logarithmic axes with room at both ends for markers and the last tic.
log_x = "set logscale x 2; set xrange [x_min / 1.12:x_max * 1.12]"
log_tics = "(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, " \
    ."300, 500, 700, 1000, 2000, 3000, 5000, 7000, 10000, 20000, 50000, 100000)"

# Ends of an axis that are never the same: of a panel's y from 0, around its values, and of x around all values.
above(p) = panel_high[p] > 0 ? 1.08 * panel_high[p] : 1.0
room(p) = panel_high[p] > panel_low[p] ? 0.07 * (panel_high[p] - panel_low[p]) : 0.05 * abs(panel_high[p]) + 0.5
x_room = x_max > x_min ? 0.06 * (x_max - x_min) : 0.05 * abs(x_max) + 0.01
# Distance of whole-numbered x tics: at most twelve of them.
whole(p) = ceil((panel_last[p] - panel_first[p] + 1) / 12.0)
