// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "trireme/base/error.h"
#include "trireme/cli/commands.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/launch/endpoint.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"
#include "trireme/train/serve_parameters.h"

namespace trireme::cli {
namespace {

// The words of the command line.
struct Words {
  std::optional<std::string> role;
  std::optional<std::string> coordinator;
  std::optional<int> index;
  std::optional<std::string> bind;
  std::optional<int> port;
  std::optional<int> servers;
  std::optional<int> workers;
};

void refuse_if(bool given, std::string_view option, std::string_view why) {
  if (given) throw_error<ConfigError>("serve-parameters: {} {}", option, why);
}

int number(const std::optional<int>& value, std::string_view option, int low,
           std::string_view role) {
  if (!value) throw_error<ConfigError>("serve-parameters: {} needs {}", role, option);
  if (*value < low) throw_error<ConfigError>("{} {} is below {}", option, *value, low);
  return *value;
}

// What has been started by trireme launch.
ServeParametersOptions launched(const Words& words) {
  constexpr std::string_view kWhy = "is not for what trireme launch has started: it has said all";
  refuse_if(words.role.has_value(), "--role", kWhy);
  refuse_if(words.coordinator.has_value(), "--coordinator", kWhy);
  refuse_if(words.index.has_value(), "--index", kWhy);
  refuse_if(words.port.has_value(), "--port", kWhy);
  refuse_if(words.servers.has_value(), "--servers", kWhy);
  refuse_if(words.workers.has_value(), "--workers", kWhy);
  const LaunchInfo info = launch_info();
  ServeParametersOptions options;
  options.role = info.role;
  options.job = *info.parameter_servers;
  options.bind_address = words.bind.value_or("");
  options.listen_fd = info.listen_fd;
  options.secret = info.secret;
  options.launched = true;
  return options;
}

ServeParametersOptions server(const Words& words) {
  constexpr std::string_view kWhy = "is the coordinator's: say --role coordinator, or leave it out";
  refuse_if(words.port.has_value(), "--port", kWhy);
  refuse_if(words.servers.has_value(), "--servers", kWhy);
  refuse_if(words.workers.has_value(), "--workers", kWhy);
  if (!words.coordinator) {
    throw_error<ConfigError>(
        "serve-parameters: a server needs --coordinator host:port; trireme launch --servers starts "
        "servers and coordinator by itself");
  }
  const Endpoint endpoint =
      parse_endpoint(*words.coordinator, "--coordinator " + *words.coordinator);
  ServeParametersOptions options;
  options.job = {.address = endpoint.address, .port = endpoint.port, .servers = 0, .workers = 0};
  options.job.index = number(words.index, "--index", 0, "a server");
  options.bind_address = words.bind.value_or("");
  return options;
}

ServeParametersOptions coordinator(const Words& words) {
  constexpr std::string_view kWhy = "is a server's: the coordinator is told --port";
  refuse_if(words.coordinator.has_value(), "--coordinator", kWhy);
  refuse_if(words.index.has_value(), "--index", kWhy);
  constexpr std::string_view kRole = "the coordinator";
  ServeParametersOptions options;
  options.role = JobRole::kCoordinator;
  options.job.address = words.bind.value_or("127.0.0.1");
  options.job.port = number(words.port, "--port", 1, kRole);
  options.job.servers = number(words.servers, "--servers", 1, kRole);
  options.job.workers = number(words.workers, "--workers", 1, kRole);
  return options;
}

ServeParametersOptions by_hand(const Words& words) {
  const std::string role = words.role.value_or("server");
  if (role != role_name(JobRole::kServer) && role != role_name(JobRole::kCoordinator)) {
    throw_error<ConfigError>("--role {} is neither server nor coordinator", role);
  }
  ServeParametersOptions options =
      role == role_name(JobRole::kServer) ? server(words) : coordinator(words);
  options.secret = environment_variable("TRIREME_SECRET").value_or("");
  if (options.secret.empty() && !is_loopback(options.job.address)) {
    throw_error<ConfigError>(
        "processes that meet at {} need a secret: give all of the job the same TRIREME_SECRET, "
        "such as what `openssl rand -hex 32` prints",
        endpoint_text(options.job.address, options.job.port));
  }
  return options;
}

ServeParametersOptions options_from(const Words& words) {
  const std::string role = environment_variable("TRIREME_ROLE").value_or("worker");
  return role == role_name(JobRole::kWorker) ? by_hand(words) : launched(words);
}

}  // namespace

void add_serve_parameters_command(CLI::App& app, Action& action) {
  auto words = std::make_shared<Words>();
  CLI::App* command = app.add_subcommand(
      "serve-parameters", "serve a job's parameters; trireme launch --servers starts it");
  command->add_option("--role", words->role, "server (default) or coordinator");
  command->add_option("--coordinator", words->coordinator,
                      "of a server: host:port of the coordinator");
  command->add_option("--index", words->index, "of a server: its number, from 0");
  command->add_option("--bind", words->bind,
                      "address to listen at (default, of a server: the one that leads to the "
                      "coordinator; of the coordinator: 127.0.0.1)");
  command->add_option("--port", words->port, "of the coordinator: where it listens")
      ->check(CLI::Range(1, 65535));
  command->add_option("--servers", words->servers, "of the coordinator: servers of the job");
  command->add_option("--workers", words->workers, "of the coordinator: workers of the job");
  command->footer(
      "By hand, one process each; workers find the job by TRIREME_PS_COORDINATOR,\n"
      "TRIREME_PS_SERVERS and TRIREME_PS_WORKERS (docs/launch.md).\n"
      "Example:  trireme serve-parameters --role coordinator --port 29502 --servers 2 --workers 4\n"
      "          trireme serve-parameters --coordinator 127.0.0.1:29502 --index 0\n"
      "          trireme serve-parameters --coordinator 127.0.0.1:29502 --index 1");
  command->callback([words, &action] {
    action = [words] {
      const ServeParametersOptions options = options_from(*words);
      follow_launcher();
      return serve_parameters(options);
    };
  });
}

}  // namespace trireme::cli
