// The drawing: labels on the grid of the index' maps, shown on a canvas of as many pixels.

import { UNDRAWN } from "./codec.js";

export class Drawing {
  /** `colours` are those of the classes, [red, green, blue]. */
  constructor(canvas, [height, width], colours) {
    this.canvas = canvas;
    [this.height, this.width] = [height, width];
    this.colours = colours;
    [canvas.width, canvas.height] = [width, height];
    this.context = canvas.getContext("2d");
    this.labels = new Int16Array(width * height).fill(UNDRAWN);
    this.cursor = this.corner = null;
    this.show();
  }

  get empty() {
    return this.labels.every((label) => label === UNDRAWN);
  }

  /** Returns the cell under a pointer, which may lie outside. */
  cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    return [x, Math.floor(((event.clientY - box.top) / box.height) * this.height)];
  }

  /** Draws a line with a round brush of so many cells. */
  line([x0, y0], [x1, y1], size, label) {
    const steps = Math.max(1, Math.abs(x1 - x0), Math.abs(y1 - y0));
    for (let step = 0; step <= steps; step++) {
      this.dot(x0 + ((x1 - x0) * step) / steps, y0 + ((y1 - y0) * step) / steps, size / 2 + 0.3, label);
    }
  }

  dot(x, y, radius, label) {
    for (let row = Math.ceil(y - radius); row <= y + radius; row++) {
      for (let column = Math.ceil(x - radius); column <= x + radius; column++) {
        if ((row - y) ** 2 + (column - x) ** 2 <= radius ** 2) this.set(column, row, label);
      }
    }
  }

  /** Fills the rectangle between two corners. */
  rectangle([x0, y0], [x1, y1], label) {
    for (let row = Math.min(y0, y1); row <= Math.max(y0, y1); row++) {
      for (let column = Math.min(x0, x1); column <= Math.max(x0, x1); column++) this.set(column, row, label);
    }
  }

  set(column, row, label) {
    if (column >= 0 && row >= 0 && column < this.width && row < this.height) this.labels[row * this.width + column] = label;
  }

  show() {
    const picture = this.context.createImageData(this.width, this.height);
    this.labels.forEach((label, place) => {
      if (label !== UNDRAWN) picture.data.set([...this.colours[label], 255], 4 * place);
    });
    for (const cell of [this.corner, this.cursor]) if (cell) picture.data.set(this.mark(cell), 4 * (cell[1] * this.width + cell[0]));
    this.context.putImageData(picture, 0, 0);
  }

  /** Returns what stands out at a cell: black or white on what is drawn, ink on paper. */
  mark([x, y]) {
    const label = this.labels[y * this.width + x];
    if (label === UNDRAWN) return [...getComputedStyle(this.canvas).color.match(/\d+/g).slice(0, 3).map(Number), 255];
    const [red, green, blue] = this.colours[label];
    const shade = 0.3 * red + 0.59 * green + 0.11 * blue > 127 ? 0 : 255;
    return [shade, shade, shade, 255];
  }
}
