/**
 * Sends impressions and clicks of recommended items from a page to a Tastemaker gateway. No dependencies.
 *
 *     import { Tastemaker } from "./tastemaker.js";
 *     const tastemaker = new Tastemaker({ url: "https://events.shop.example", key: "…", userId: "u7" });
 *     tastemaker.watch(document.querySelector("#recommended"), { requestId: answer.request_id });
 *
 * Elements inside the watched one that carry `data-item-id` are the items of the list, in the order of the page unless
 * `data-position` says another, counted from 0. An impression is an item of which half was in view for a second without
 * a break, once per list; a click is a click inside the item. Events are sent in batches, and what is left when the page
 * is hidden goes at once. Each event has an id of its own, so that one that is sent again counts once.
 *
 * The key stands in the page: give it the scope `ingest` and nothing else.
 */

/** In one request; the gateway takes 1000. */
const MOST_EVENTS = 100;
/** Bytes of a request that may outlive its page: browsers allow 64 KiB in all. */
const MOST_OUTLIVING = 60_000;
const MOST_KEPT = 1000;
const MOST_TRIES = 5;

export class Tastemaker {
  /**
   * @param {object} options
   * @param {string} options.url Of the gateway, without /v1.
   * @param {string} options.userId The customer's own id of the visitor.
   * @param {string} [options.key] API key of scope `ingest`; none where a proxy of the site adds it.
   * @param {Object<string, string>} [options.context] device, country, … of all events.
   * @param {number} [options.visibleMs] How long half of an item must be in view.
   * @param {number} [options.flushMs] How long events wait for others.
   * @param {(error: Error) => void} [options.onError] Told of batches that are given up, and of rejected events.
   */
  constructor({ url, userId, key, context, visibleMs = 1000, flushMs = 2000, onError = () => {} }) {
    if (!url || !userId) throw new TypeError("url and userId are needed");
    this.#address = `${url.replace(/\/+$/, "")}/v1/events`;
    this.#userId = String(userId);
    this.#headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
    this.#context = context;
    this.#visibleMs = visibleMs;
    this.#flushMs = flushMs;
    this.#onError = onError;
    this.#onHide = () => {
      if (document.visibilityState === "hidden") this.flush();
    };
    this.#onLeave = () => this.flush();
    document.addEventListener("visibilitychange", this.#onHide);
    globalThis.addEventListener("pagehide", this.#onLeave);
  }

  #address;
  #userId;
  #headers;
  #context;
  #visibleMs;
  #flushMs;
  #onError;
  #onHide;
  #onLeave;
  #waiting = [];
  #timer = null;
  #stops = new Set();

  /**
   * Watches a list until the function that it returns is called.
   *
   * @param {Element} list Holds the elements with `data-item-id`.
   * @param {object} answer
   * @param {string} answer.requestId `request_id` of the recommendation that the list shows.
   * @returns {() => void} Stops watching.
   */
  watch(list, { requestId }) {
    const elements = [...list.querySelectorAll("[data-item-id]")];
    const positions = new Map(elements.map((element, index) => [element, positionOf(element, index)]));
    const timers = new Map();
    const forget = (element) => {
      clearTimeout(timers.get(element));
      timers.delete(element);
    };
    const send = (kind, element) =>
      this.send(kind, element.dataset.itemId, { request_id: requestId, position: positions.get(element) });
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting, intersectionRatio } of entries) {
          if (!isIntersecting || intersectionRatio < 0.5) {
            forget(target);
          } else if (!timers.has(target)) {
            timers.set(
              target,
              setTimeout(() => {
                forget(target);
                observer.unobserve(target);
                send("impression", target);
              }, this.#visibleMs),
            );
          }
        }
      },
      { threshold: [0, 0.5] },
    );
    elements.forEach((element) => observer.observe(element));
    const onClick = (event) => {
      const element = event.target.closest?.("[data-item-id]");
      if (element && positions.has(element)) send("click", element);
    };
    list.addEventListener("click", onClick);
    const stop = () => {
      observer.disconnect();
      elements.forEach(forget);
      list.removeEventListener("click", onClick);
      this.#stops.delete(stop);
    };
    this.#stops.add(stop);
    return stop;
  }

  /**
   * Notes an event, such as a purchase; it is sent with the next batch.
   *
   * @param {string} kind impression, view, click, like, purchase, rating, watch, skip, dislike or hide.
   * @param {string} itemId The customer's own id.
   * @param {object} [more] value, request_id, position.
   */
  send(kind, itemId, more = {}) {
    const event = {
      event_id: newId(),
      user_id: this.#userId,
      item_id: String(itemId),
      kind,
      timestamp_ms: Date.now(),
      ...(this.#context ? { context: this.#context } : {}),
      ...more,
    };
    this.#waiting.push({ event, tries: 0 });
    if (this.#waiting.length > MOST_KEPT) {
      const lost = this.#waiting.splice(0, this.#waiting.length - MOST_KEPT);
      this.#onError(new Error(`${lost.length} events were given up: the gateway takes none`));
    }
    if (this.#waiting.length >= MOST_EVENTS) this.flush();
    else this.#later(this.#flushMs);
  }

  /** Sends what waits. Requests outlive the page (`keepalive`); what fails is tried again while the page lives. */
  async flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const batches = [];
    while (this.#waiting.length) batches.push(this.#waiting.splice(0, MOST_EVENTS));
    await Promise.all(batches.map((batch) => this.#deliver(batch)));
  }

  async #deliver(batch) {
    let problem;
    let lasting = false;
    let waitMs = 0;
    try {
      const body = JSON.stringify({ events: batch.map(({ event }) => event) });
      const response = await fetch(this.#address, {
        method: "POST",
        headers: this.#headers,
        body,
        keepalive: body.length < MOST_OUTLIVING,
        credentials: "omit",
      });
      if (response.ok) {
        const { rejections } = await response.json();
        for (const { reason } of rejections) this.#onError(new Error(`an event was rejected: ${reason}`));
        return;
      }
      problem = new Error(`the gateway answered ${response.status}: ${await detailOf(response)}`);
      lasting = response.status < 500 && response.status !== 408 && response.status !== 429;
      waitMs = 1000 * (Number(response.headers.get("retry-after")) || 0);
    } catch (error) {
      problem = error;
    }
    for (const waiting of batch) waiting.tries += 1;
    const again = lasting ? [] : batch.filter(({ tries }) => tries < MOST_TRIES);
    if (again.length < batch.length) this.#onError(problem);
    if (again.length === 0) return;
    this.#waiting.unshift(...again);
    this.#later(waitMs + this.#flushMs * 2 ** (again[0].tries - 1) * (0.5 + Math.random()));
  }

  /** Stops watching all lists and sends what waits. */
  async close() {
    this.#stops.forEach((stop) => stop());
    document.removeEventListener("visibilitychange", this.#onHide);
    globalThis.removeEventListener("pagehide", this.#onLeave);
    await this.flush();
  }

  #later(milliseconds) {
    if (this.#timer === null) this.#timer = setTimeout(() => this.flush(), milliseconds);
  }
}

function positionOf(element, index) {
  const told = Number.parseInt(element.dataset.position ?? "", 10);
  return Number.isInteger(told) && told >= 0 ? told : index;
}

async function detailOf(response) {
  try {
    return (await response.json()).detail ?? "";
  } catch {
    return "";
  }
}

/** `randomUUID` exists on secure pages alone. */
function newId() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID();
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
