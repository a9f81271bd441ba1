// Renders /openapi.json: what there is, and how to ask for it with curl.

const $ = (id) => document.getElementById(id);

/** An element with attributes, and children or text in it. */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A word for a type of the schema. */
const type = (schema) => schema.type ?? "any";

/** The command that sends the operation's example. */
function curl(path, method, body) {
  const url = `${location.origin}${path.replace(/\{\w+\}/g, "…")}`;
  if (method === "get") return `curl ${url}`;
  const verb = method === "post" ? "" : ` -X ${method.toUpperCase()}`;
  return body ? `curl${verb} ${url} -d '${JSON.stringify(body.example)}'` : `curl${verb} ${url}`;
}

/** The fields of a body, those that must be there first. */
function fields(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties).sort(([a], [b]) => required.has(b) - required.has(a));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...["Field", "Type", "What"].map((head) => element("th", { scope: "col" }, head)))));
  const body = element("tbody", {});
  for (const [name, field] of rows) {
    const what = required.has(name) ? `Required. ${field.description}` : field.description;
    body.append(element("tr", {}, element("td", {}, name), element("td", {}, type(field)), element("td", {}, what)));
  }
  table.append(body);
  return element("details", {}, element("summary", {}, `${rows.length} fields`), table);
}

function article(path, method, operation) {
  const body = operation.requestBody?.content["application/json"];
  const made = element(
    "article",
    { id: operation.operationId },
    element("h3", {}, element("span", { class: "method" }, method.toUpperCase()), ` ${path}`),
    element("p", {}, `${operation.summary} Answers: ${operation.responses["200"].description}`),
    element("pre", {}, curl(path, method, body)),
  );
  if (body) made.append(fields(body.schema));
  return made;
}

async function show() {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`/openapi.json: ${answer.status}`);
  const { paths } = await answer.json();
  const families = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const [family] = operation.tags;
      if (!families.has(family)) families.set(family, []);
      families.get(family).push({ path, method, operation });
    }
  }
  for (const [family, operations] of families) {
    const links = operations.map(({ path, method, operation }) =>
      element("li", {}, element("a", { href: `#${operation.operationId}` }, `${method.toUpperCase()} ${path}`)),
    );
    $("contents").append(element("h2", {}, family), element("ul", {}, ...links));
    const articles = operations.map(({ path, method, operation }) => article(path, method, operation));
    $("operations").append(element("section", { "aria-label": family }, element("h2", {}, family), ...articles));
  }
  $("state").hidden = true;
  // The place that the address names was not there when the page came.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((error) => {
  $("state").textContent = `The document can't be read: ${error.message}`;
});
