// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/world.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/gloo/gloo_mesh.h"
#include "trireme/comm/group_impl.h"
#include "trireme/comm/mpi/mpi_support.h"
#include "trireme/comm/nccl/nccl_mesh.h"
#include "trireme/comm/shm/shm_regions.h"

namespace trireme {
namespace {

bool wants_mpi(const std::string& engine) { return engine == "mpi" || engine == "shm+mpi"; }

void validate(const WorldOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    throw_error<ConfigError>("rank {} is not one of a world of {}", options.rank, options.size);
  }
  check_engine_name(options.engine);
  if (options.size == 1) return;
  if (wants_mpi(options.engine)) require_mpi(options.size);
  const bool adopts = options.rank == 0 && options.listen_fd >= 0;
  if (!adopts && (options.port < 1 || options.port > 65535)) {
    throw_error<ConfigError>("port {} is not between 1 and 65535", options.port);
  }
  if (options.secret.empty() && !is_loopback(options.address)) {
    throw_error<ConfigError>(
        "ranks that meet at {} need a secret: anyone who reaches that address could join otherwise",
        options.address);
  }
}

// The ranks whose host is not rank 0's.
std::vector<int> elsewhere(const std::vector<Member>& members) {
  std::vector<int> ranks;
  for (const Member& member : members) {
    if (member.host_id != members[0].host_id) ranks.push_back(member.rank);
  }
  return ranks;
}

bool shares_its_host(const WorldState& world) {
  const std::string& host = world.members[static_cast<std::size_t>(world.rank)].host_id;
  return std::count_if(world.members.begin(), world.members.end(),
                       [&](const Member& member) { return member.host_id == host; }) > 1;
}

// Between ranks of one host.
bool uses_shm(const std::string& engine) { return engine == "auto" || engine.starts_with("shm"); }

// "ranks 0, 1 on alpha by shm, rank 2 on beta, between hosts by gloo": what carries bytes between
// which ranks.
std::string describe_engines(const WorldState& world) {
  if (!uses_shm(world.engine)) return "all by " + world.engine;
  std::map<std::string, std::vector<int>> hosts;
  for (const Member& member : world.members) hosts[member.host_id].push_back(member.rank);
  std::string text;
  for (const auto& [id, ranks] : hosts) {
    const Member& member = world.members[static_cast<std::size_t>(ranks[0])];
    text += fmt::format("{}{} on {}{}", text.empty() ? "" : ", ", detail::name_ranks(ranks),
                        member.host_name, ranks.size() > 1 ? " by shm" : "");
  }
  const bool several = hosts.size() > 1;
  if (!several) return text;
  return text + ", between hosts by " + (wants_mpi(world.engine) ? "mpi" : "gloo");
}

void join(WorldState& world, const WorldOptions& options, const Deadline& deadline,
          FileDescriptor listener) {
  Meeting meeting = meet(options, std::move(listener));
  world.members = meeting.members;
  world.control =
      std::make_unique<ControlPlane>(options.rank, std::move(meeting), world.latch, world.waits);
  if (world.nccl != nullptr) {
    world.nccl->meet(options.rank, world.members, *world.control, world.latch, deadline);
  }
  const std::vector<int> far = elsewhere(world.members);
  if (options.engine == "shm" && !far.empty()) {
    throw_error<ConfigError>(
        "the shm engine was asked for, but {} of {} do not share a host with rank 0; use auto or "
        "gloo",
        detail::name_ranks(far), options.size);
  }
  if (uses_shm(options.engine) && shares_its_host(world)) {
    world.regions = std::make_shared<ShmRegions>();
  }
  if (options.engine == "mpi" || (options.engine == "shm+mpi" && !far.empty())) {
    // An MPI launcher ends this process as soon as it sees another end.
    world.control->log_failures();
    world.mpi = make_mpi_mesh(options.rank, options.size, *world.control, world.latch, deadline);
  }
  // Ranks that move what is on devices tell one another about it over Gloo.
  const bool has_mpi = world.mpi != nullptr;
  if (world.nccl != nullptr || (!has_mpi && (options.engine == "gloo" || !far.empty()))) {
    world.mesh =
        std::make_shared<GlooMesh>(options, world.members, *world.control, world.latch, deadline);
  }
}

}  // namespace

void check_engine_name(std::string_view engine) {
  constexpr std::string_view kEngines[] = {"auto", "shm", "gloo", "shm+gloo", "mpi", "shm+mpi"};
  if (std::find(std::begin(kEngines), std::end(kEngines), engine) == std::end(kEngines)) {
    throw_error<ConfigError>(
        "there is no engine '{}'; use auto, shm, gloo, shm+gloo, mpi or shm+mpi", engine);
  }
}

std::unique_ptr<Group> join_world(const WorldOptions& options) {
  // Taken over whatever happens, and of no use to a world of one.
  FileDescriptor listener(options.rank == 0 ? options.listen_fd : -1);
  validate(options);
  WorldOptions own = options;
  std::shared_ptr<NcclMesh> nccl;
  if (options.cuda.wanted()) nccl = std::make_shared<NcclMesh>(options.cuda, options.size);
  if (options.size > 1) {
    own.fingerprint.emplace_back("buffers on CUDA devices",
                                 nccl != nullptr ? "by " + nccl->library() : "not taken");
  }
  const Deadline deadline = Deadline::after(options.join_timeout);
  GroupScope scope;
  scope.world = std::make_shared<WorldState>();
  scope.world->rank = options.rank;
  scope.world->engine = options.engine;
  scope.world->nccl = nccl;
  scope.name = "world";
  scope.rank = options.rank;
  scope.world_ranks.resize(static_cast<std::size_t>(options.size));
  std::iota(scope.world_ranks.begin(), scope.world_ranks.end(), 0);
  if (options.size == 1) {
    scope.world->members.resize(1);
    return std::make_unique<Group>(std::make_unique<GroupImpl>(scope, options.timeout));
  }
  try {
    join(*scope.world, own, deadline, std::move(listener));
    auto world = std::make_unique<GroupImpl>(scope, deadline.remaining());
    world->run({});
    world->set_timeout(options.timeout);
    const std::string met =
        fmt::format("{} ranks have met at {}:{}: {}{}", options.size, options.address, options.port,
                    describe_engines(*scope.world),
                    nccl != nullptr ? ", CUDA buffers by " + nccl->library() : "");
    if (options.rank == 0) {
      log_info("{}", met);
    } else {
      log_debug("{}", met);
    }
    return std::make_unique<Group>(std::move(world));
  } catch (const std::exception& error) {
    // So that the others do not only see this rank vanish.
    if (scope.world->control != nullptr) scope.world->control->announce(Failure::of(error));
    throw;
  }
}

}  // namespace trireme
