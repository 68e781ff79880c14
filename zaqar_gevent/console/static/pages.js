// Lists that are too long to be had, or shown, in one piece.

const ROWS = 20;

/**
 * The pages of a list.
 *
 * fetch: gives `{items, marker, count}` for a marker, as many as the server gives at a time. A page here
 * has at least twenty of them, where there are so many.
 */
export class Pages {
  constructor(fetch) {
    this.fetch = fetch;
    this.markers = [undefined];
    this.count = null;
    this.hasNext = false;
  }

  get number() {
    return this.markers.length;
  }

  get hasPrevious() {
    return this.markers.length > 1;
  }

  /** The items of the current page. */
  async load() {
    const items = [];
    let marker = this.markers.at(-1);
    let page;
    do {
      page = await this.fetch(marker);
      items.push(...page.items);
      marker = page.marker;
      this.count = page.count ?? this.count;
    } while (page.items.length > 0 && marker && items.length < ROWS);
    this.following = marker;
    this.hasNext = page.items.length > 0 && Boolean(marker) && (await this.#isMore(marker, items));
    return items;
  }

  async #isMore(marker, items) {
    if (this.count !== null && this.number === 1) {
      return this.count > items.length;
    }
    return (await this.fetch(marker)).items.length > 0;
  }

  next() {
    this.markers.push(this.following);
  }

  previous() {
    this.markers.pop();
  }
}
