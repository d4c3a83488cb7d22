// A page without a browser: three items and a clock for `tastemaker.js`, which talks to a real gateway.
// Prints what onError was told, one JSON line.
import { pathToFileURL } from "node:url";

const [module, url, key] = process.argv.slice(2);
const listeners = {};
const listen = (kind, heard) => (listeners[kind] ??= []).push(heard);
const hear = (kind, event) => (listeners[kind] ?? []).forEach((heard) => heard(event));
globalThis.document = { visibilityState: "visible", addEventListener: listen, removeEventListener: () => {} };
globalThis.addEventListener = listen;
globalThis.removeEventListener = () => {};
let look;
const observed = new Set();
globalThis.IntersectionObserver = class {
  constructor(seen) { look = seen; }
  observe(element) { observed.add(element); }
  unobserve(element) { observed.delete(element); }
  disconnect() { observed.clear(); }
};
const item = (itemId, position) => {
  const element = { dataset: position === undefined ? { itemId } : { itemId, position } };
  element.closest = () => element;
  return element;
};
const [first, second, third] = [item("a"), item("b"), item("c", "7")];
const list = { querySelectorAll: () => [first, second, third], addEventListener: listen, removeEventListener: () => {} };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const view = (target, intersectionRatio) => {
  if (observed.has(target)) look([{ target, isIntersecting: intersectionRatio > 0, intersectionRatio }]);
};

const { Tastemaker } = await import(pathToFileURL(module));
const told = [];
const tastemaker = new Tastemaker({
  url, key, userId: "u7", context: { device: "tv" }, visibleMs: 150, flushMs: 60_000,
  onError: (error) => told.push(error.message),
});
tastemaker.watch(list, { requestId: "r1" });
view(first, 0.6);          // stays: an impression
view(second, 0.6);         // leaves too early: none
view(third, 0.2);          // too little of it: none
await pause(20);
view(second, 0.1);
await pause(400);
view(first, 0.6);          // once per list
await pause(400);
hear("click", { target: third });
hear("click", { target: { closest: () => null } });
tastemaker.send("purchase", "c", { value: 9.5, request_id: "r1" });
tastemaker.send("glance", "c");
document.visibilityState = "hidden";
hear("visibilitychange", {});
await pause(1500);
await tastemaker.close();
console.log(JSON.stringify(told));
