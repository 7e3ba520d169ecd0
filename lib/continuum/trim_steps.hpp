// The steps of a trim on a client. Private to the library: includes Asio.
#pragma once

#include "continuum/redis_client.hpp"
#include "continuum/trim.hpp"

namespace continuum {

// trim_log() (trim.hpp) for those who have other things to do meanwhile. What it refers to must outlive it.
[[nodiscard]] asio::awaitable<TrimResult> trim_in_steps(redis::Client& client, const Topic& topic,
                                                        Partition partition, const TrimGoal& goal,
                                                        const std::vector<TrimGroup>& passed_over,
                                                        TrimHead head, const std::function<bool()>& between);

}  // namespace continuum
