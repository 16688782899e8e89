// A large photo through the network, strip by strip, with the very numbers of the whole picture.
//
// Every instance norm needs the mean and variance of a whole feature map. So the network comes in
// seven graphs (fast_style/export/stages.py); each ends at a norm, is run over all strips of rows,
// and gives the statistics of its own rows, which are merged here in float64. What came before is
// computed once more by the next graph instead of being held: only the trunk's map, at a quarter of
// the edge, is.
//
// Rows are counted in "quarters", rows of the trunk's map; each is two rows at half resolution and
// four of the padded photo.

// How far the photo goes on beyond its edges, mirrored; what the first convolution sees to each side.
const EDGE = 8;
const MARGIN = 4;
const STRIDE = 4;

/** Return the rows or columns of a photo that the first convolution reads, padding and all. */
export function paddedLines(size) {
  const padded = size + 2 * EDGE;
  const total = paddedSize(size);
  const mirror = (i, last) => last - Math.abs(last - i);
  // Where the photo is smaller than the edge, it is mirrored to and fro.
  const period = Math.max(2 * size - 2, 1);
  return Int32Array.from({ length: total + 2 * MARGIN }, (_, k) => {
    const i = mirror(mirror(Math.abs(k - MARGIN), total - 1), padded - 1) - EDGE;
    return mirror(((i % period) + period) % period, size - 1);
  });
}

/** Return what a size becomes with the mirrored edge, as a multiple of the network's stride. */
export function paddedSize(size) {
  const padded = size + 2 * EDGE;
  return padded + ((STRIDE - (padded % STRIDE)) % STRIDE);
}

/** Means and variances of strips, merged in float64. */
class Statistics {
  #count = 0;
  #mean = null;
  #squares = null;

  add(mean, variance, count) {
    this.#mean ??= new Float64Array(mean.length);
    this.#squares ??= new Float64Array(mean.length);
    const total = this.#count + count;
    for (let c = 0; c < mean.length; c++) {
      const apart = mean[c] - this.#mean[c];
      this.#mean[c] += (apart * count) / total;
      this.#squares[c] += variance[c] * count + (apart * apart * this.#count * count) / total;
    }
    this.#count = total;
  }

  get mean() {
    return Float32Array.from(this.#mean);
  }

  get variance() {
    return Float32Array.from(this.#squares, (sum) => sum / this.#count);
  }
}

/**
 * Stylize a photo, {data: RGBA, width, height}, into `output`, RGBA of the same size, but for alpha.
 *
 * `run(stage, feeds)` runs a graph and resolves to its outputs. `tensor(type, data, shape)` makes
 * what it takes. `pixels` is about how many pixels of the photo a strip has. `progress` is told the
 * share that is done.
 */
export async function stylizeInStages(photo, output, { run, tensor, channels, pixels, progress }) {
  const chain = new Chain(photo, { run, tensor, channels, pixels, progress });
  await chain.encode();
  await chain.trunk();
  await chain.decode(output);
}

class Chain {
  constructor(photo, { run, tensor, channels, pixels, progress }) {
    this.photo = photo;
    this.run = run;
    this.tensor = tensor;
    this.channels = channels;
    this.progress = progress;
    this.rows = paddedLines(photo.height);
    this.columns = paddedLines(photo.width);
    this.quarters = paddedSize(photo.height) / STRIDE;
    this.quarterColumns = paddedSize(photo.width) / STRIDE;
    const step = Math.max(1, Math.round(pixels / (STRIDE * STRIDE * this.quarterColumns)));
    this.strips = [];
    for (let a = 0; a < this.quarters; a += step) {
      this.strips.push([a, Math.min(a + step, this.quarters)]);
    }
    // What the stages cost, measured: the bar shall move evenly.
    this.costs = { encode1: 10, encode2: 15, encode3: 16, trunk: 32, decode1: 4, decode2: 9, decode3: 24 };
    this.done = 0;
    this.norms = {};
  }

  tick(stage, share) {
    this.done += this.costs[stage] * share;
    const all = Object.values(this.costs).reduce((sum, cost) => sum + cost);
    this.progress(Math.min(1, this.done / all));
  }

  /** Run a stage over all strips; keep its norm, give what it computes to `take`. */
  async over(stage, norm, feedsOf, take = () => {}) {
    const statistics = new Statistics();
    for (const [a, b] of this.strips) {
      const feeds = feedsOf(a, b);
      if (!feeds) continue;
      const outputs = await this.run(stage, feeds);
      if (norm) statistics.add(outputs.mean.data, outputs.variance.data, b - a);
      take(outputs.stage, a, b);
      for (const output of Object.values(outputs)) output.dispose?.();
      this.tick(stage, (b - a) / this.quarters);
    }
    if (norm) this.norms[norm] = statistics;
  }

  async encode() {
    await this.over("encode1", 1, (a, b) => ({ image: this.imageRows(4 * a, 4 * b) }));
    await this.over("encode2", 2, (a, b) => this.halfRows(2 * a, 2 * b));
    const size = this.quarters * this.quarterColumns;
    this.map = new Float32Array(4 * this.channels * size);
    await this.over(
      "encode3",
      3,
      (a, b) => {
        // A reflected row above the first one; below the last, stride 2 reads none.
        const [first, rows2] = reflected(2 * a - 1, 2 * b);
        const feeds = this.halfRows(first, 2 * b);
        return { ...feeds, ...this.norm(2), rows2: this.index(rows2) };
      },
      (strip, a, b) => {
        const length = (b - a) * this.quarterColumns;
        for (let c = 0; c < 4 * this.channels; c++) {
          const from = strip.data.subarray(c * length, (c + 1) * length);
          this.map.set(from, c * size + a * this.quarterColumns);
        }
      },
    );
  }

  async trunk() {
    const shape = [1, 4 * this.channels, this.quarters, this.quarterColumns];
    const feeds = { map: this.tensor("float32", this.map, shape), ...this.norm(3) };
    const outputs = await this.run("trunk", feeds);
    this.map = outputs.stage.data;
    this.tick("trunk", 1);
  }

  async decode(output) {
    await this.over("decode1", 4, (a, b) => ({ map: this.trunkRows(a, b) }));
    await this.over("decode2", 5, (a, b) => this.upsampledRows(2 * a - 1, 2 * b + 1));
    const { width, height } = this.photo;
    await this.over(
      "decode3",
      0,
      (a, b) => {
        const [first, last] = visible(a, b, this.quarters, height);
        if (first === last) return null;
        // Rows of the padded photo at full resolution; the head's squares are of two rows each.
        const top = first + EDGE - MARGIN;
        const bottom = last + (last % 2) + EDGE + MARGIN;
        const feeds = this.upsampledRows(top / 2 - 1, bottom / 2 + 1);
        const evenWidth = width + (width % 2);
        return {
          ...feeds,
          ...this.norm(5),
          starts: this.index([0, EDGE - MARGIN]),
          ends: this.index([bottom - top, evenWidth + EDGE + MARGIN]),
          size: this.index([last - first, width]),
        };
      },
      (strip, a, b) => {
        const [first, last] = visible(a, b, this.quarters, height);
        const rgb = strip.data;
        for (let i = first * width * 4, j = 0; i < last * width * 4; i += 4, j += 3) {
          output[i] = rgb[j];
          output[i + 1] = rgb[j + 1];
          output[i + 2] = rgb[j + 2];
        }
      },
    );
  }

  /** Return what the first convolution reads for rows [first, last) of its map. */
  imageRows(first, last) {
    const { data, width } = this.photo;
    const lines = this.rows.subarray(first, last + 2 * MARGIN);
    const rgb = new Uint8Array(lines.length * this.columns.length * 3);
    let j = 0;
    for (const line of lines) {
      const row = line * width * 4;
      for (const column of this.columns) {
        const i = row + column * 4;
        rgb[j] = data[i];
        rgb[j + 1] = data[i + 1];
        rgb[j + 2] = data[i + 2];
        j += 3;
      }
    }
    return this.tensor("uint8", rgb, [1, lines.length, this.columns.length, 3]);
  }

  /** Return the feeds from which come rows [first, last) of the map at half resolution. */
  halfRows(first, last) {
    const [top, rows1] = reflected(2 * first - 1, 2 * last);
    return { image: this.imageRows(top, 2 * last), ...this.norm(1), rows1: this.index(rows1) };
  }

  /** Return rows [first - 1, last + 1) of the trunk's map; those beyond the edge repeat it. */
  trunkRows(first, last) {
    const { quarters, quarterColumns: columns } = this;
    const rows = last - first + 2;
    const strip = new Float32Array(4 * this.channels * rows * columns);
    for (let c = 0; c < 4 * this.channels; c++) {
      for (let k = 0; k < rows; k++) {
        const from = (c * quarters + clamp(first - 1 + k, quarters)) * columns;
        strip.set(this.map.subarray(from, from + columns), (c * rows + k) * columns);
      }
    }
    return this.tensor("float32", strip, [1, 4 * this.channels, rows, columns]);
  }

  /** Return the feeds of an upsampling from rows [first, last) at half resolution. */
  upsampledRows(first, last) {
    const halves = 2 * this.quarters;
    const a = Math.floor(clamp(first, halves) / 2);
    const b = Math.floor(clamp(last - 1, halves) / 2) + 1;
    const rows4 = [];
    for (let row = first; row < last; row++) rows4.push(clamp(row, halves) - 2 * a);
    return { map: this.trunkRows(a, b), ...this.norm(4), rows4: this.index(rows4) };
  }

  norm(number) {
    const { mean, variance } = this.norms[number];
    return {
      [`mean${number}`]: this.tensor("float32", mean, [mean.length]),
      [`variance${number}`]: this.tensor("float32", variance, [variance.length]),
    };
  }

  index(values) {
    return this.tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  }
}

/** Return the first row to compute for rows [first, last), and the index of each among those. */
function reflected(first, last) {
  const top = Math.max(0, first);
  const index = [];
  for (let row = first; row < last; row++) index.push(Math.abs(row) - top);
  return [top, index];
}

function clamp(row, count) {
  return Math.min(Math.max(row, 0), count - 1);
}

/** Return which rows of the photo a strip of the trunk stands for: even ones, all together all. */
function visible(a, b, quarters, height) {
  // What is around the photo is cut off: the strips share out its rows in proportion, in pairs.
  const at = (quarter) => 2 * Math.round((quarter * height) / (2 * quarters));
  return [at(a), b === quarters ? height : Math.min(at(b), height)];
}
