// Answers the test vectors with the JavaScript module: node assignment.mjs <module> <vectors>.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [, , module, file] = process.argv;
const { bucket, has, pick, slotOf, variantOf } = await import(pathToFileURL(module).href);
const vectors = JSON.parse(await readFile(file, "utf8"));
const all = (rows, answer) => Promise.all(rows.map(answer));
console.log(JSON.stringify({
  buckets: await all(vectors.buckets, (row) => bucket(row.salt, row.scope, row.unit)),
  slots: await all(vectors.slots, (row) => slotOf(row.layer, row.unit)),
  fixed: await all(vectors.fixed, async (row) => pick(row.weights, await bucket(row.salt, row.experiment, row.unit))),
  draws: await all(vectors.draws, async (row) => pick(row.propensities, await bucket(row.salt, `${row.experiment}:${row.epoch}`, row.unit))),
  whole: await all(vectors.whole, (row) => variantOf(row.experiment, row.traffic, row.unit)),
  traffic: vectors.traffic.map((row) => has(row.ranges, row.wanted, row.slot)),
  holdout: await all(vectors.holdout, async (row) => (await bucket("", `holdout:${row.salt}`, row.unit)) < row.share),
}));
