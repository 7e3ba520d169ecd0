// continuum local: the embedded server.
#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"

#include "continuum/error.hpp"
#include "continuum/local.hpp"
#include "continuum/topic.hpp"
#include "continuum/units.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace continuum::app {
namespace {

int start(const Context& context, const std::string& named) {
  const auto directory = local_directory(context, named);
  if (!ensure_local(context, directory)) {
    say(context, fmt::format("the embedded server runs already, on {}", local::address(directory).text()));
  }
  return 0;
}

int stop(const Context& context, const std::string& named) {
  const auto directory = local_directory(context, named);
  const bool stopped = local::stop(directory);
  say(context, (stopped ? "stopped the embedded server in " : "no embedded server runs in ") + directory);
  return 0;
}

// Exit 1 when it does not run, so that scripts can ask.
int status(const Context& context, const std::string& named) {
  const auto directory = local_directory(context, named);
  const auto socket = local::address(directory).text();
  const auto found = local::status(directory);
  Output out;
  if (!found) {
    if (context.json) {
      out.line(JsonObject().add("state", "stopped").add("directory", directory).add("server", socket).text());
    } else {
      Table table({{"STATE"}, {"SERVER"}});
      table.row({Cell("stopped", Colour::yellow), socket});
      table.print(out);
    }
    out.flush();
    return static_cast<int>(ErrorKind::partial);
  }
  redis::Session session(local::address(directory), {});
  const auto topics = list_topics(session).size();
  if (context.json) {
    out.line(JsonObject()
                 .add("state", "running")
                 .add("directory", directory)
                 .add("server", socket)
                 .add("pid", found->pid)
                 .add("version", found->version)
                 .add("memory_bytes", found->memory_bytes)
                 .add("uptime_seconds", found->uptime.count())
                 .add("topics", topics)
                 .text());
  } else {
    Table table({{"STATE"},
                 {"PID", Table::Align::right},
                 {"VERSION"},
                 {"MEMORY", Table::Align::right},
                 {"UPTIME", Table::Align::right},
                 {"TOPICS", Table::Align::right},
                 {"SERVER"}});
    table.row({Cell("running", Colour::green), std::to_string(found->pid), found->version,
               format_bytes(found->memory_bytes), format_duration(found->uptime), topics, socket});
    table.print(out);
  }
  out.flush();
  return 0;
}

void add(CLI::App& command, Context& context, const std::string& name, const std::string& summary,
         int (*body)(const Context&, const std::string&)) {
  auto& subcommand = add_subcommand(command, name, summary);
  const auto directory = std::make_shared<std::string>();
  add_text(subcommand, "DIR", "", *directory, "its directory; else continuum/ in the user's state directory");
  run_with(subcommand, context, [&context, directory, body] { return body(context, *directory); });
}

}  // namespace

void add_local(CLI::App& command, Context& context) {
  add(command, context, "start", "start it, unless it runs", start);
  add(command, context, "stop", "end it; what is stored stays", stop);
  add(command, context, "status", "whether it runs (exit 0) or not (exit 1)", status);
}

}  // namespace continuum::app
