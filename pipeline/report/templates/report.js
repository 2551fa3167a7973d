"use strict";
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);

  // Pictures are stored once, as data, and given to an <img> when it comes near the window.
  const pictures = JSON.parse(byId("pictures").textContent);
  const show = (img) => { if (!img.src && pictures[img.dataset.picture]) img.src = pictures[img.dataset.picture]; };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); show(entry.target); }
  }, { rootMargin: "400px" });
  const watch = (from) => all("img[data-picture]", from).forEach((img) => near.observe(img));
  watch(document);

  // The details of a finding are laid out when they are first opened: a thousand of them would make the page slow.
  const unfold = (details) => {
    const template = details.querySelector(":scope > template");
    if (!template) return;
    template.replaceWith(template.content);
    watch(details);
  };
  all("details.more").forEach((details) => {
    if (details.open) unfold(details);
    details.addEventListener("toggle", () => { if (details.open) unfold(details); });
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((details) => { unfold(details); details.open = true; });
    all("img[data-picture]").forEach(show);
    all("img[loading]").forEach((img) => { img.loading = "eager"; });
  });
  addEventListener("afterprint", () => closed.forEach((details) => { details.open = false; }));

  const root = document.documentElement;
  const theme = byId("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();

  const list = byId("list");
  if (list) {
    const found = all(".finding", list);
    const controls = ["search", "class", "verdict", "type", "sort"].map(byId);
    const [search, kind, verdict, type, sort] = controls;
    const text = new Map(found.map((item) => [item, item.dataset.search]));
    const apply = () => {
      const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const item of found) {
        const data = item.dataset;
        const fits = (!kind.value || data.class === kind.value) && (!verdict.value || data.verdict === verdict.value)
          && (!type.value || data.type === type.value) && terms.every((term) => text.get(item).includes(term));
        item.hidden = !fits;
        shown += fits && !item.classList.contains("aside");
      }
      byId("count").textContent = `${shown} of ${found.length} shown`;
      byId("nothing").hidden = shown > 0;
      byId("clear").hidden = !controls.slice(0, 4).some((control) => control.value);
    };
    const order = () => {
      const key = sort.value;
      const value = (item) => Number(item.dataset[key]);
      const sorted = key === "given" ? found : [...found].sort((a, b) => (key === "q" ? value(a) - value(b) : value(b) - value(a)));
      list.append(...sorted);
    };
    controls.slice(0, 4).forEach((control) => control.addEventListener("input", apply));
    sort.addEventListener("input", order);
    byId("clear").addEventListener("click", () => { controls.slice(0, 4).forEach((c) => { c.value = ""; }); apply(); search.focus(); });
    addEventListener("keydown", (event) => {
      if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    });
    all("[data-only]").forEach((link) => link.addEventListener("click", () => {
      controls.slice(0, 4).forEach((c) => { c.value = ""; });
      kind.value = link.dataset.only;
      apply();
    }));
    byId("tools").hidden = false;
    apply();
    document.addEventListener("filtered", apply); // a review's own filter
    // A link to a finding must reach it even when a filter hides it.
    const reach = () => {
      const target = location.hash && byId(location.hash.slice(1));
      if (target && target.classList.contains("finding")) {
        if (target.hidden) { controls.slice(0, 4).forEach((c) => { c.value = ""; }); apply(); }
        all("details.more", target).forEach((details) => { unfold(details); details.open = true; });
        target.scrollIntoView();
      }
    };
    addEventListener("hashchange", reach);
    reach();
  }
})();
