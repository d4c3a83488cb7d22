// Which variant a user gets, told in the browser as Tastemaker tells it: docs/experiments-setup.md says the rule, and
// platform/tastemaker/experiments/assignment_vectors.json what it gives. Not for bandits: what they drew only the gateway knows.

export const SLOTS = 10000;

/** A number in [0, 1): the top 53 of the first 64 bits of SHA-256 over salt, scope and unit, joined by NUL. */
export async function bucket(salt, scope, unit) {
  const bytes = new TextEncoder().encode([salt, scope, unit].join("\0"));
  const digest = new DataView(await crypto.subtle.digest("SHA-256", bytes));
  return Number(digest.getBigUint64(0) >> 11n) / 2 ** 53;
}

/** The place in `probabilities` that holds `point`. */
export function pick(probabilities, point) {
  let edge = 0;
  for (let place = 0; place < probabilities.length; place++) {
    edge += probabilities[place];
    if (point < edge) return place;
  }
  return probabilities.length - 1;
}

/** The slot of a unit in a layer. */
export async function slotOf(layer, unit) {
  return Math.floor((await bucket("", `layer:${layer}`, unit)) * SLOTS);
}

/** Whether a slot is among the first `wanted` of some ranges [first, end). */
export function has(ranges, wanted, slot) {
  for (const [first, end] of ranges) {
    if (wanted <= 0) return false;
    if (first <= slot && slot < Math.min(end, first + wanted)) return true;
    wanted -= end - first;
  }
  return false;
}

/** The variant of a unit in a running experiment with a fixed split, as `GET /admin/v1/experiments/{name}` shows it; else null. */
export async function variantOf(experiment, trafficNow, unit) {
  const ranges = experiment.course.ranges ?? [[0, SLOTS]];
  const slot = await slotOf(experiment.layer, unit);
  if (!has(ranges, Math.round(trafficNow * SLOTS), slot)) return null;
  const point = await bucket(experiment.salt, experiment.name, unit);
  return experiment.variants[pick(experiment.allocation.weights, point)].name;
}
