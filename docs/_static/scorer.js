// What the search shows first: the lessons, then the pages to look things up, then the API.
var Scorer = {
  score: ([page, , , , score]) =>
    score + (page.startsWith("lessons/0") || page.startsWith("lessons/1") ? 100
      : page.startsWith("lessons/") ? 60 : page === "api" ? -60 : 30),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
