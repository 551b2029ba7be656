// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/launch_request.h"

#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <system_error>

#include "trireme/base/error.h"
#include "trireme/launch/endpoint.h"
#include "trireme/topology/host.h"

namespace trireme {
namespace {

// Far above any host's cores and any installation's hosts: a slip of the finger is more likely.
constexpr int kMostWorkers = 4096;
constexpr int kMostNodes = 100000;

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

int number_of_workers(const std::string& text) {
  if (text == "auto") return usable_cores();
  const std::optional<int> number = whole_number(text);
  if (!number || *number < 1 || *number > kMostWorkers) {
    throw_error<ConfigError>("--workers {} is neither a number in [1, {}] nor auto", text,
                             kMostWorkers);
  }
  return *number;
}

// Starting the same job in every rank of another is hardly meant. Several launchers of one job are
// started by somebody, so with --nodes it is.
void check_no_launcher_above(const LaunchRequest& request, const EnvironmentLookup& lookup) {
  const LaunchInfo info = launch_info(lookup);
  if (info.launcher == Launcher::kTrireme) {
    throw_error<ConfigError>(
        "this is {} of a job that trireme launch has started: a launch inside a launch starts no "
        "ranks of that job; give the first one the number of workers",
        info.role == JobRole::kWorker ? fmt::format("rank {}", info.rank) : role_name(info.role));
  }
  if (info.launcher != Launcher::kNone && !request.nodes) {
    throw_error<ConfigError>(
        "{} has already started {} ranks, and each of them would launch a job of its own: let it "
        "start the program itself, or say with --nodes that these are the launchers of one job",
        launcher_name(info.launcher), info.size);
  }
}

void check_nodes(const LaunchRequest& request) {
  if (!request.nodes) {
    if (request.node_rank) {
      throw_error<ConfigError>("--node-rank {} needs --nodes, the number of hosts",
                               *request.node_rank);
    }
    if (!request.rendezvous.empty()) {
      throw_error<ConfigError>(
          "--rendezvous {} needs --nodes and --node-rank; the workers of one host take --port",
          request.rendezvous);
    }
    return;
  }
  const int nodes = *request.nodes;
  if (nodes < 1 || nodes > kMostNodes) {
    throw_error<ConfigError>("--nodes {} is not in [1, {}]", nodes, kMostNodes);
  }
  if (!request.node_rank) {
    throw_error<ConfigError>(
        "--nodes {} needs --node-rank: 0 on the host of the rendezvous, others up to {} elsewhere",
        nodes, nodes - 1);
  }
  if (*request.node_rank < 0 || *request.node_rank >= nodes) {
    throw_error<ConfigError>("--node-rank {} is not in [0, {}]: there are --nodes {}",
                             *request.node_rank, nodes - 1, nodes);
  }
  if (request.rendezvous.empty() && nodes > 1) {
    throw_error<ConfigError>(
        "--nodes {} needs --rendezvous host:port, where node 0 listens, the same on every host",
        nodes);
  }
  if (!request.rendezvous.empty() && request.port != 0) {
    throw_error<ConfigError>("--port {} and --rendezvous {} both say a port: leave --port out",
                             request.port, request.rendezvous);
  }
  if (nodes > 1 && request.workers == "auto") {
    throw_error<ConfigError>(
        "--workers auto may differ between {} hosts, and ranks are counted by it: give a number",
        nodes);
  }
}

bool has_servers(const LaunchRequest& request) { return request.servers.value_or(0) != 0; }

void check_servers(const LaunchRequest& request, const EnvironmentLookup& lookup) {
  const int servers = request.servers.value_or(0);
  if (servers < 0 || servers > kMostWorkers) {
    throw_error<ConfigError>("--servers {} is not in [0, {}]", servers, kMostWorkers);
  }
  if (request.restarts && *request.restarts < 0) {
    throw_error<ConfigError>("--restarts {} is below 0", *request.restarts);
  }
  if (!has_servers(request)) {
    if (request.restarts) {
      throw_error<ConfigError>(
          "--restarts {} needs --servers: without parameter servers a worker that dies ends the "
          "job, because the others cannot go on without it",
          *request.restarts);
    }
    return;
  }
  if (!request.workers) {
    throw_error<ConfigError>("--servers {} needs --workers, the number of workers on this host",
                             servers);
  }
  if (const auto coordinator = lookup("TRIREME_PS_COORDINATOR")) {
    throw_error<ConfigError>(
        "--servers {} starts a coordinator, but TRIREME_PS_COORDINATOR={} names one: unset it, or "
        "leave --servers out to use that one's servers",
        servers, *coordinator);
  }
}

bool is_executable_file(const std::filesystem::path& path) {
  std::error_code unknown;
  return std::filesystem::is_regular_file(path, unknown) && access(path.c_str(), X_OK) == 0;
}

std::string explicit_program(const std::string& name) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(name, error);
  if (!std::filesystem::exists(status)) {
    throw_error<ConfigError>("there is no program {}: {}", name,
                             error ? error.message() : "no such file");
  }
  if (std::filesystem::is_directory(status)) {
    throw_error<ConfigError>("{} is a folder, not a program", name);
  }
  if (!is_executable_file(name)) {
    throw_error<ConfigError>("{} is not executable: chmod +x, or name its interpreter before it",
                             name);
  }
  return name;
}

}  // namespace

std::string find_program(const std::string& name, std::string_view search_path) {
  if (name.find('/') != std::string::npos) return explicit_program(name);
  for (std::string_view rest = search_path; !name.empty();) {
    const std::size_t colon = rest.find(':');
    // An empty folder means the current one.
    const std::string folder(colon == 0 || rest.empty() ? "." : rest.substr(0, colon));
    if (is_executable_file(folder + "/" + name)) return folder + "/" + name;
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  throw_error<ConfigError>(
      "there is no program '{}' in PATH; one in the current folder is named ./{}", name, name);
}

LocalWorkersOptions plan_launch(const LaunchRequest& request, const EnvironmentLookup& lookup) {
  if (request.command.empty()) {
    throw_error<ConfigError>("no program is given: trireme launch -n 4 -- ./program arguments");
  }
  check_nodes(request);
  check_no_launcher_above(request, lookup);
  check_servers(request, lookup);
  LocalWorkersOptions options;
  options.workers = number_of_workers(request.workers.value_or("1"));
  options.port = request.port;
  options.prefix = request.prefix;
  options.log_folder = request.log_folder;
  options.command = request.command;
  options.command.front() =
      find_program(request.command.front(), lookup("PATH").value_or("/usr/bin:/bin"));
  if (has_servers(request)) {
    const std::vector<std::string> serve = {program_invocation_name, "serve-parameters"};
    options.parameter_servers = ServingOptions{.servers = *request.servers,
                                               .server_command = serve,
                                               .coordinator_command = serve,
                                               .restarts = request.restarts.value_or(0)};
  }
  if (request.rendezvous.empty()) return options;
  const Endpoint rendezvous =
      parse_endpoint(request.rendezvous, "--rendezvous " + request.rendezvous);
  options.port = rendezvous.port;
  if (*request.nodes == 1) return options;
  options.share = JobShare{.first_rank = *request.node_rank * options.workers,
                           .world_size = *request.nodes * options.workers,
                           .address = rendezvous.address,
                           .secret = lookup("TRIREME_SECRET").value_or(""),
                           .node = *request.node_rank,
                           .nodes = *request.nodes};
  return options;
}

}  // namespace trireme
