// Pixels: RGBA bytes, as canvases have them.

/** Return photo + strength (stylized - photo), in linear light, with the photo's alpha. */
export function blend(photo, stylized, strength) {
  if (strength === 1) return stylized;
  const output = new Uint8ClampedArray(photo.length);
  for (let i = 0; i < photo.length; i += 4) {
    for (let k = i; k < i + 3; k++) {
      const from = LIGHT[photo[k]];
      output[k] = SRGB[Math.round((from + strength * (LIGHT[stylized[k]] - from)) * STEPS)];
    }
    output[i + 3] = photo[i + 3];
  }
  return output;
}

// Linear light of sRGB bytes and back (IEC 61966-2-1), by tables: twelve megapixels take a second.
const STEPS = 65535;
const LIGHT = Float32Array.from({ length: 256 }, (_, byte) => {
  const value = byte / 255;
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
});
const SRGB = Uint8Array.from({ length: STEPS + 1 }, (_, step) => {
  const light = step / STEPS;
  const value = light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
  return Math.round(value * 255);
});

/** Give pixels that nobody sees the mean colour of those that are seen: the norms see them all. */
export function fillTransparent(data) {
  const sums = [0, 0, 0];
  let seen = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] === 0) continue;
    for (let k = 0; k < 3; k++) sums[k] += data[i + k];
    seen++;
  }
  if (seen === data.length / 4 || seen === 0) return;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] !== 0) continue;
    for (let k = 0; k < 3; k++) data[i + k] = sums[k] / seen;
  }
}

/** Return the size that a photo is stylized at: its own, or with a long edge of so many pixels. */
export function scaledSize(width, height, longEdge) {
  const scale = Math.min(1, (longEdge || Infinity) / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** Return how far two pictures are apart: the largest difference, and the share of other pixels. */
export function difference(one, other) {
  let most = 0;
  let others = 0;
  for (let i = 0; i < one.length; i += 3) {
    let apart = 0;
    for (let k = i; k < i + 3; k++) apart = Math.max(apart, Math.abs(one[k] - other[k]));
    most = Math.max(most, apart);
    if (apart > 0) others++;
  }
  return { most, share: (3 * others) / one.length };
}
