
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);
  const list = all(".finding");
  const who = byId("who");
  let state = { findings: {}, order: "" };
  let first = "";

  try { who.value = localStorage.getItem("cuescope-reviewer") || ""; } catch { /* no storage: the name is asked for again */ }
  who.addEventListener("input", () => { try { localStorage.setItem("cuescope-reviewer", who.value); } catch { /* as above */ } draw(); });

  const tell = (text, bad = false) => { byId("kept").textContent = text; byId("kept").classList.toggle("bad", bad); };
  const opinion = (item) => state.findings[item.dataset.finding] || { verdict: "", people: [], pictures: [] };
  const mine = (item) => opinion(item).people.filter((one) => one.annotator === who.value.trim()).pop() || { verdict: "", note: "", called: "" };
  const bold = (text) => { const b = document.createElement("b"); b.textContent = text; return b; };

  const people = (item) => {
    const said = opinion(item);
    const line = item.querySelector(".people");
    const parts = [];
    for (const one of said.people) {
      const what = [one.verdict, one.called && `calls it “${one.called}”`, one.note && `“${one.note}”`].filter(Boolean).join(", ");
      parts.push(bold(one.annotator), `: ${what}. `);
    }
    if (said.verdict === "disagreed") {
      const split = document.createElement("span");
      split.className = "split";
      split.textContent = "No majority.";
      parts.push(split);
    } else if (said.verdict && said.people.length > 1) parts.push("Together: ", bold(said.verdict), ".");
    else if (said.verdict && !said.people.length) parts.push("By its pictures, or a cue of the same name: ", bold(said.verdict), ".");
    line.replaceChildren(...parts);
  };

  const draw = () => {
    const name = who.value.trim();
    let done = 0;
    for (const item of list) {
      const own = mine(item);
      const verdict = own.verdict;
      done += Boolean(verdict);
      all("[data-say]", item).forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.say === verdict)));
      people(item);
      const all_said = opinion(item);
      all("figure[data-image]", item).forEach((figure) => {
        const seen = all_said.pictures.filter((one) => one.image_id === figure.dataset.image && one.annotator === name).pop();
        figure.querySelector(".there")?.classList.toggle("said", Boolean(seen));
        all(".there button", figure).forEach((button) => button.setAttribute("aria-pressed", String(Boolean(seen) && String(seen.present) === button.dataset.there)));
      });
      const whose = byId("whose").value;
      const fits = !whose || (whose === "open" && !verdict) || (whose === "mine" && verdict) || (whose === "split" && all_said.verdict === "disagreed");
      item.classList.toggle("aside", !fits && item !== document.activeElement);
    }
    byId("done").max = Math.max(list.length, 1);
    byId("done").value = done;
    byId("said").textContent = `${done} of ${list.length} judged`;
    byId("anew").hidden = !first || state.order === first;
    document.dispatchEvent(new Event("filtered"));
  };

  const take = (news) => {
    state = news;
    first = first || news.order;
    if (news.trouble.length) tell(news.trouble[0], true);
    draw();
  };
  const read = async (response) => {
    const news = await response.json();
    if (!response.ok) throw new Error(news.error);
    return news;
  };
  let last = "";
  const refresh = async () => {
    try {
      const news = await read(await fetch("state", { cache: "no-store" }));
      const text = JSON.stringify(news);
      if (text !== last) take(news);
      last = text;
    }
    catch (error) { tell(error instanceof TypeError ? "The server doesn’t answer. Was it stopped?" : error.message, true); }
  };
  const send = async (said) => {
    if (!who.value.trim()) { tell("Say who you are first.", true); who.focus(); return; }
    try {
      take(await read(await fetch("say", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...said, who: who.value.trim() }) })));
      if (!state.trouble.length) tell("Kept.");
    } catch (error) { tell(error instanceof TypeError ? "Not kept: the server doesn’t answer. Was it stopped?" : error.message, true); }
  };
  const whole = (item, change) => { const { verdict, note, called } = mine(item); return send({ finding: item.dataset.finding, verdict, note, called, ...change }); };
  const judge = (item, verdict) => whole(item, { verdict: mine(item).verdict === verdict ? "" : verdict });

  const ask = byId("ask");
  let answered = () => {};
  const title = (item) => item.querySelector("h3").firstChild.textContent.trim();
  const open = (heading, why, { text, options }, then) => {
    byId("ask-title").textContent = heading;
    byId("ask-why").textContent = why;
    byId("ask-text-name").textContent = heading;
    byId("ask-text-label").hidden = text === undefined;
    byId("ask-pick-label").hidden = !options;
    byId("ask-text").value = text || "";
    byId("ask-pick").replaceChildren(...(options || []).map(([value, label]) => new Option(label, value)));
    answered = () => then(options ? byId("ask-pick").value : byId("ask-text").value.trim());
    ask.showModal();
    (options ? byId("ask-pick") : byId("ask-text")).focus();
  };
  byId("ask-cancel").addEventListener("click", () => ask.close());
  ask.querySelector("form").addEventListener("submit", () => answered());
  byId("ask-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask.close(); answered(); }
  });
  const tools = {
    rename: (item) => open(`A better name for “${title(item)}”`, "Cues of one name are one cue. Leave it empty to keep its own.", { text: mine(item).called }, (called) => whole(item, { called: called.slice(0, 200) })),
    note: (item) => open(`Note on “${title(item)}”`, "Kept with your verdict.", { text: mine(item).note }, (note) => whole(item, { note: note.slice(0, 2000) })),
    merge: (item) => {
      const others = list.filter((other) => other !== item && other.dataset.class === item.dataset.class);
      if (!others.length) { tell("The class has no other cue."); return; }
      open(`“${title(item)}” is the same cue as`, "Both are called by the name of the one you choose, and a verdict on one holds for both.", { options: others.map((other) => [other.dataset.finding, title(other)]) }, (other) => whole(item, { same_as: other }));
    },
  };

  for (const item of list) {
    all("[data-say]", item).forEach((button) => button.addEventListener("click", () => judge(item, button.dataset.say)));
    all("[data-do]", item).forEach((button) => button.addEventListener("click", () => tools[button.dataset.do](item)));
    all(".gallery figure[data-image]", item).forEach((figure, place) => {
      const there = document.createElement("div");
      there.className = "there";
      there.setAttribute("role", "group");
      there.setAttribute("aria-label", `Is the cue in picture ${place + 1}?`);
      for (const [value, text] of [["true", "there"], ["false", "not"]]) {
        const button = document.createElement("button");
        Object.assign(button, { type: "button", textContent: text });
        button.dataset.there = value;
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("click", () => send({ finding: item.dataset.finding, image: figure.dataset.image, present: value === "true" }));
        there.append(button);
      }
      figure.append(there);
    });
  }
  addEventListener("error", (event) => { if (event.target instanceof HTMLImageElement) event.target.parentElement.classList.add("gone"); }, true);

  const visible = () => all(".finding").filter((item) => !item.hidden && !item.classList.contains("aside"));
  const current = () => {
    const focused = document.activeElement.closest(".finding");
    return focused || visible().find((item) => item.getBoundingClientRect().bottom > 140);
  };
  const go = (step) => {
    const shown = visible();
    const focused = document.activeElement.closest(".finding");
    const next = focused ? shown[shown.indexOf(focused) + step] : current();
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
  };
  const says = ["spurious", "core", "not present", "unsure"];
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    const item = current();
    const act = {
      j: () => go(1), k: () => go(-1), "?": () => byId("help").showModal(),
      r: () => item && tools.rename(item), m: () => item && tools.merge(item), n: () => item && tools.note(item),
      o: () => item && item.querySelector("details.more > summary").click(),
    }[event.key] || (says["1234".indexOf(event.key)] && event.key.length === 1 && (() => item && judge(item, says[Number(event.key) - 1])));
    if (act) { event.preventDefault(); act(); }
  });
  byId("keys").addEventListener("click", () => byId("help").showModal());
  byId("whose").addEventListener("input", () => { document.activeElement.blur(); draw(); });
  byId("anew").addEventListener("click", () => location.reload());

  refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, 3000);
})();
