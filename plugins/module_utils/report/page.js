"use strict";
// The page is whole without this: it only filters, opens what a link points into, and unfolds for printing.
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("filter"), text = byId("text"), control = byId("control"), verdict = byId("verdict");
  const hosts = [...document.querySelectorAll(".host")].map((element) => ({
    element,
    verdict: element.dataset.verdict,
    controls: element.dataset.controls.split(" "),
    row: document.querySelector(`tr[data-host="${element.id}"]`),
    causes: [...element.querySelectorAll(".cause")].map((cause) => ({
      element: cause, verdict: cause.dataset.verdict, controls: cause.dataset.controls.split(" "),
    })),
  }));
  const problems = hosts.reduce((sum, host) => sum + host.causes.length, 0);
  const columns = [...document.querySelectorAll(".matrix thead th")].map((cell) => cell.textContent);
  const number = new Intl.NumberFormat("en");
  const lower = (element) => element.textContent.toLowerCase();

  function words(host) {
    // What is searched, gathered at the first search: long lists make it costly.
    if (host.head === undefined) {
      host.head = [...host.element.children].filter((child) => child.matches("header, .outcome")).map(lower).join(" ");
      for (const cause of host.causes) cause.text = lower(cause.element);
    }
    return host;
  }

  function apply() {
    const wanted = text.value.trim().toLowerCase(), id = control.value, kind = verdict.value;
    let shownHosts = 0, shownProblems = 0;
    for (const host of hosts) {
      const named = !wanted || words(host).head.includes(wanted);
      let fits = 0;
      for (const cause of host.causes) {
        const shown = (named || cause.text.includes(wanted)) && (!id || cause.controls.includes(id))
          && (!kind || cause.verdict === kind || (kind === host.verdict && kind === "not audited"));
        cause.element.hidden = !shown;
        fits += shown;
      }
      // A host without a fitting problem stays for its own sake: compliant, or not audited and never to be hidden.
      const own = named && (!kind || (kind === host.verdict && (kind === "compliant" || !host.causes.length)))
        && (!id || host.verdict === "not audited" || host.controls.includes(id));
      const shown = fits > 0 || own;
      host.element.hidden = !shown;
      host.row.hidden = !shown;
      for (const row of host.element.querySelectorAll("tr[data-control]")) row.hidden = id !== "" && row.dataset.control !== id;
      shownHosts += shown;
      shownProblems += fits;
    }
    for (const row of document.querySelectorAll(".matrix tr")) {
      if (row.cells.length !== columns.length) continue;
      for (let index = 1; index < columns.length; index += 1) row.cells[index].hidden = id !== "" && columns[index] !== id;
    }
    byId("nothing").hidden = shownHosts > 0;
    byId("shown").textContent = `${number.format(shownProblems)} of ${number.format(problems)} problems, `
      + `${number.format(shownHosts)} of ${number.format(hosts.length)} hosts`;
  }

  let timer = 0;
  const soon = () => { clearTimeout(timer); timer = setTimeout(apply, 120); };
  form.addEventListener("input", soon);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());

  function reveal() {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) { form.reset(); clearTimeout(timer); apply(); }
    for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const box of closed) box.open = true;
  });
  addEventListener("afterprint", () => { for (const box of closed) box.open = false; });

  form.hidden = false;
  apply();
  reveal();
})();
