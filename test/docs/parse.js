// Parse a RAML file: print what is wrong with it, and its resources with their methods.
const raml = require("raml-1-parser");
const api = raml.loadApiSync(process.argv[2], {rejectOnErrors: false});
const resources = api.allResources().map((resource) => ({
  path: resource.completeRelativeUri(),
  methods: resource.methods().map((method) => method.method()),
  parameters: resource.uriParameters().map((parameter) => parameter.name()),
}));
console.log(JSON.stringify({errors: api.errors(), version: api.RAMLVersion(), resources}));
