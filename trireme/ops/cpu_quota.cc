// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/cpu_quota.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

namespace trireme::detail {
namespace {

namespace fs = std::filesystem;

std::optional<double> ratio(double quota, double period) {
  return quota > 0.0 && period > 0.0 ? std::optional(quota / period) : std::nullopt;
}

// cpu.max holds "max 100000" or "150000 100000" (microseconds of quota and period).
std::optional<double> quota_v2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double quota = 0.0, period = 0.0;
  return file >> quota >> period ? ratio(quota, period) : std::nullopt;
}

// Quota -1 means none.
std::optional<double> quota_v1(const fs::path& folder) {
  std::ifstream quota_file(folder / "cpu.cfs_quota_us"), period_file(folder / "cpu.cfs_period_us");
  double quota = 0.0, period = 0.0;
  return quota_file >> quota && period_file >> period ? ratio(quota, period) : std::nullopt;
}

bool has_word(const std::string& list, std::string_view word) {
  std::istringstream words(list);
  for (std::string item; std::getline(words, item, ',');) {
    if (item == word) {
      return true;
    }
  }
  return false;
}

// The smallest quota of group and its parents up to the mount. In a container the path may name
// folders of the host that are not visible; those have no files and are passed over.
template <class Read>
void visit_parents(const fs::path& mount, const std::string& group, Read read,
                   std::vector<double>& quotas) {
  fs::path folder = mount / fs::path(group).relative_path();
  for (;;) {
    if (const auto quota = read(folder)) {
      quotas.push_back(*quota);
    }
    if (folder == mount || folder.parent_path() == folder) {
      return;
    }
    folder = folder.parent_path();
  }
}

}  // namespace

std::optional<double> cpu_quota(const std::string& membership, const std::string& root) {
  std::vector<double> quotas;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:group
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    // A group of "/" must not leave a trailing slash: its parent would be the mount itself.
    const std::string group = line.substr(std::min(line.size(), second + 2));
    if (controllers.empty()) {
      visit_parents(root, group, quota_v2, quotas);
    } else if (has_word(controllers, "cpu")) {
      visit_parents(fs::path(root) / "cpu", group, quota_v1, quotas);
    }
  }
  const auto smallest = std::min_element(quotas.begin(), quotas.end());
  return smallest == quotas.end() ? std::nullopt : std::optional(*smallest);
}

}  // namespace trireme::detail
