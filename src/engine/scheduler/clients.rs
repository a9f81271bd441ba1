//! Who has had how much: fairness between clients by tokens, not by requests (Sheng et al. 2024, "Fairness in Serving Large
//! Language Models": the virtual token counter).
//!
//! Every client has a counter of the tokens it was served, and of those who wait the one with the least goes first. A client
//! that comes back after a pause is lifted to the least of those who are here, so that nobody saves up.

use std::collections::HashMap;

use crate::engine::request::ClientKey;

/// An answer's token costs this many of a prompt's, as in the paper.
pub const ANSWER_WEIGHT: u64 = 2;

/// Clients that are remembered. More are only if all of them have requests here, of which there is a bound.
const CLIENTS_MAX: usize = 1024;

/// `None`: all who do not say who they are, together.
pub type Client = Option<ClientKey>;

#[derive(Debug, Default)]
struct Account {
    served: u64,
    /// Requests that wait or run.
    requests: usize,
}

#[derive(Debug, Default)]
pub struct Clients {
    accounts: HashMap<Client, Account>,
    /// The counter of who was served last: where they begin who find nobody here.
    level: u64,
}

impl Clients {
    /// A request of this client has come.
    pub fn enter(&mut self, client: Client) {
        if self.accounts.get(&client).is_none_or(|account| account.requests == 0) {
            let active = self.accounts.values().filter(|account| account.requests > 0);
            let floor = active.map(|account| account.served).min().unwrap_or(self.level);
            self.make_room();
            let account = self.accounts.entry(client).or_default();
            account.served = account.served.max(floor);
        }
        self.accounts.entry(client).or_default().requests += 1;
    }

    /// A request of this client has gone.
    pub fn leave(&mut self, client: Client) {
        if let Some(account) = self.accounts.get_mut(&client) {
            account.requests = account.requests.saturating_sub(1);
        }
    }

    pub fn charge(&mut self, client: Client, tokens: u64) {
        if let Some(account) = self.accounts.get_mut(&client) {
            account.served += tokens;
            self.level = account.served;
        }
    }

    /// Tokens it was served, as far as they are remembered.
    pub fn served(&self, client: Client) -> u64 {
        self.accounts.get(&client).map_or(0, |account| account.served)
    }

    /// Forgets one who is not here: the one with the least, who would be lifted first.
    fn make_room(&mut self) {
        if self.accounts.len() >= CLIENTS_MAX {
            let gone = self.accounts.iter().filter(|(_, account)| account.requests == 0);
            if let Some(client) = gone.min_by_key(|(_, account)| account.served).map(|(&client, _)| client) {
                self.accounts.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(key: u64) -> Client {
        Some(ClientKey(key))
    }

    #[test]
    fn who_comes_back_has_saved_nothing_and_owes_what_it_owed() {
        let mut clients = Clients::default();
        for key in 0..3 {
            clients.enter(client(key));
        }
        clients.charge(client(0), 100);
        clients.charge(client(1), 70);
        clients.charge(client(2), 500);
        clients.leave(client(2));
        clients.enter(client(3));
        assert_eq!(clients.served(client(3)), 70, "the least of those who are here");
        clients.enter(client(2));
        assert_eq!(clients.served(client(2)), 500);
        for key in 0..4 {
            clients.leave(client(key));
        }
        clients.leave(client(2));
        clients.charge(client(0), 5);
        clients.enter(None);
        assert_eq!(clients.served(None), 105, "the one who was served last");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut clients = Clients::default();
        clients.enter(client(0));
        clients.charge(client(0), 1);
        for key in 1..10_000 {
            clients.enter(client(key));
            clients.charge(client(key), key);
            clients.leave(client(key));
        }
        assert_eq!(clients.accounts.len(), CLIENTS_MAX);
        assert_eq!(clients.served(client(0)), 1, "who is here is not forgotten");
        assert!(clients.served(client(9_999)) > 0);
    }
}
