//! Where the scheduler's tenants, conversations and items lie: slots that are reused, linked by number.
//!
//! Nothing is allocated per conversation or item, names are stored once, and what becomes empty is given back.

use super::rules::{Rules, Share};
use ackline_shared::ids::TenantId;
use slab::Slab;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Room that is kept when everything is idle.
const KEPT_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub tenant: usize,
    pub lane: usize,
    /// Hash of what orders the work within the tenant.
    pub hash: u64,
}

/// A list linked through its members.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain {
    head: Option<u32>,
    tail: Option<u32>,
}

impl Chain {
    /// Whether it has no member.
    pub fn is_empty(self) -> bool {
        self.head.is_none()
    }
}

#[derive(Debug)]
pub struct Tenant {
    pub name: Arc<TenantId>,
    /// What is said about it.
    pub share: Share,
    /// Pieces running, over all lanes.
    pub running: usize,
    /// Pieces queued, over all lanes.
    pub queued: usize,
    /// Its place in each lane.
    pub lanes: Box<[Member]>,
    conversations: usize,
}

/// A tenant's place in one lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct Member {
    /// What it may still start in this turn; negative when it took more.
    pub credit: i64,
    /// Whether it is in the lane's turn.
    pub in_turn: bool,
    /// Its conversations that may go on.
    pub ready: Chain,
}

#[derive(Debug)]
pub struct Conversation {
    pub key: Key,
    pub items: Chain,
    /// Something of it is running or held.
    pub busy: bool,
    /// It is among its tenant's ready ones.
    pub ready: bool,
    next: Option<u32>,
}

#[derive(Debug)]
struct Node<T> {
    item: T,
    cost: u32,
    next: Option<u32>,
}

#[derive(Debug)]
pub struct Arena<T> {
    tenants: Slab<Tenant>,
    tenant_ids: HashMap<Arc<TenantId>, u32>,
    conversations: Slab<Conversation>,
    conversation_ids: HashMap<Key, u32>,
    items: Slab<Node<T>>,
    hasher: RandomState,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            tenants: Slab::new(),
            tenant_ids: HashMap::new(),
            conversations: Slab::new(),
            conversation_ids: HashMap::new(),
            items: Slab::new(),
            hasher: RandomState::new(),
        }
    }
}

impl<T> Arena<T> {
    /// How many tenants, conversations and items it holds.
    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.tenants.len()
            + self.tenant_ids.len()
            + self.conversations.len()
            + self.conversation_ids.len()
            + self.items.len()
    }

    /// Hashes with a key of our own, so that nobody can aim for collisions.
    pub fn hash(&self, what: impl Hash) -> u64 {
        self.hasher.hash_one(what)
    }

    /// The slots of all tenants.
    pub fn tenants(&self) -> Vec<usize> {
        self.tenants.iter().map(|(id, _)| id).collect()
    }

    /// The slots of all conversations.
    pub fn conversations(&self) -> Vec<usize> {
        self.conversations.iter().map(|(id, _)| id).collect()
    }

    /// All items, in no order.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, node)| &node.item)
    }

    pub fn tenant_mut(&mut self, id: usize) -> Option<&mut Tenant> {
        self.tenants.get_mut(id)
    }

    pub fn tenant_named(&self, name: &TenantId) -> Option<&Tenant> {
        self.tenants.get(index(*self.tenant_ids.get(name)?))
    }

    pub fn conversation(&self, id: usize) -> Option<&Conversation> {
        self.conversations.get(id)
    }

    /// A conversation by slot, to change it.
    pub fn conversation_mut(&mut self, id: usize) -> Option<&mut Conversation> {
        self.conversations.get_mut(id)
    }

    /// The tenant of a conversation.
    pub fn tenant_of(&self, conversation: usize) -> Option<usize> {
        self.conversations
            .get(conversation)
            .map(|conversation| conversation.key.tenant)
    }

    pub fn item(&self, node: usize) -> Option<&T> {
        self.items.get(node).map(|node| &node.item)
    }

    /// Finds a tenant's slot or makes it.
    pub fn enter_tenant(&mut self, name: &TenantId, lanes: usize, rules: &Rules) -> usize {
        if let Some(id) = self.tenant_ids.get(name) {
            return index(*id);
        }
        let name = Arc::new(name.clone());
        let share = rules.share(&name);
        let lanes = vec![Member::default(); lanes].into_boxed_slice();
        let tenant = Tenant {
            name: name.clone(),
            share,
            running: 0,
            queued: 0,
            lanes,
            conversations: 0,
        };
        let id = self.tenants.insert(tenant);
        self.tenant_ids.insert(name, number(id));
        id
    }

    /// Finds a conversation's slot or makes it.
    pub fn enter_conversation(&mut self, key: Key) -> usize {
        if let Some(id) = self.conversation_ids.get(&key) {
            return index(*id);
        }
        let fresh = Conversation {
            key,
            items: Chain::default(),
            busy: false,
            ready: false,
            next: None,
        };
        let id = self.conversations.insert(fresh);
        self.conversation_ids.insert(key, number(id));
        if let Some(tenant) = self.tenants.get_mut(key.tenant) {
            tenant.conversations += 1;
        }
        id
    }

    /// Forgets an empty conversation, and its tenant when that was the last.
    pub fn leave_conversation(&mut self, id: usize) {
        let Some(conversation) = self.conversations.try_remove(id) else {
            return;
        };
        let key = conversation.key;
        self.conversation_ids.remove(&key);
        if let Some(tenant) = self.tenants.get_mut(key.tenant) {
            tenant.conversations -= 1;
            if tenant.conversations == 0 {
                self.tenant_ids.remove(&tenant.name);
                self.tenants.remove(key.tenant);
            }
        }
        if self.conversations.is_empty() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if self.conversations.capacity().max(self.items.capacity()) > KEPT_MAX {
            *self = Self {
                hasher: self.hasher.clone(),
                ..Self::default()
            };
        }
    }

    /// Adds an item behind the others of its conversation.
    pub fn append(&mut self, conversation: usize, cost: u32, item: T) {
        let node = self.items.insert(Node {
            item,
            cost,
            next: None,
        });
        let Some(mut chain) = self
            .conversation(conversation)
            .map(|conversation| conversation.items)
        else {
            return;
        };
        self.link(&mut chain, node);
        if let Some(conversation) = self.conversations.get_mut(conversation) {
            conversation.items = chain;
        }
    }

    /// Adds an item before the others of its conversation; it has been charged already.
    pub fn prepend(&mut self, conversation: usize, item: T) {
        let Some(conversation) = self.conversations.get_mut(conversation) else {
            return;
        };
        let node = number(self.items.insert(Node {
            item,
            cost: 1,
            next: conversation.items.head,
        }));
        conversation.items.head = Some(node);
        conversation.items.tail.get_or_insert(node);
    }

    /// Takes the oldest item of a conversation, with its cost.
    pub fn pop(&mut self, conversation: usize) -> Option<(u32, T)> {
        let node = self.detach(conversation)?;
        self.items
            .try_remove(node)
            .map(|node| (node.cost, node.item))
    }

    /// Takes the oldest item out of its conversation's list, but not out of the arena.
    pub fn detach(&mut self, conversation: usize) -> Option<usize> {
        let items = &mut self.conversations.get_mut(conversation)?.items;
        let head = items.head?;
        items.head = self.items.get_mut(index(head))?.next.take();
        if items.head.is_none() {
            items.tail = None;
        }
        Some(index(head))
    }

    /// Adds a detached item to the end of a list.
    pub fn link(&mut self, chain: &mut Chain, node: usize) {
        match chain.tail.replace(number(node)) {
            None => chain.head = Some(number(node)),
            Some(last) => {
                if let Some(last) = self.items.get_mut(index(last)) {
                    last.next = Some(number(node));
                }
            }
        }
    }

    /// Takes a detached item out.
    pub fn take(&mut self, node: usize) -> Option<T> {
        self.items.try_remove(node).map(|node| node.item)
    }

    /// Puts a conversation behind its tenant's ready ones.
    pub fn push_ready(&mut self, id: usize) {
        let Some(conversation) = self.conversations.get_mut(id) else {
            return;
        };
        conversation.ready = true;
        conversation.next = None;
        let key = conversation.key;
        let Some(member) = self
            .tenants
            .get_mut(key.tenant)
            .and_then(|tenant| tenant.lanes.get_mut(key.lane))
        else {
            return;
        };
        match member.ready.tail.replace(number(id)) {
            None => member.ready.head = Some(number(id)),
            Some(last) => {
                if let Some(last) = self.conversations.get_mut(index(last)) {
                    last.next = Some(number(id));
                }
            }
        }
    }

    /// Takes the first of a tenant's ready conversations.
    pub fn pop_ready(&mut self, tenant: usize, lane: usize) -> Option<usize> {
        let ready = &mut self.tenants.get_mut(tenant)?.lanes.get_mut(lane)?.ready;
        let head = index(ready.head?);
        let conversation = self.conversations.get_mut(head)?;
        conversation.ready = false;
        ready.head = conversation.next.take();
        if ready.head.is_none() {
            ready.tail = None;
        }
        Some(head)
    }

    /// Takes every conversation out of the ready lists and every tenant out of the turns.
    pub fn unready_all(&mut self) {
        for (_, conversation) in &mut self.conversations {
            conversation.ready = false;
            conversation.next = None;
        }
        for (_, tenant) in &mut self.tenants {
            for member in &mut tenant.lanes {
                *member = Member {
                    credit: member.credit.min(0),
                    ..Member::default()
                };
            }
        }
    }
}

/// Slots are bounded by what is read ahead, far below what 32 bits count.
fn number(id: usize) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}
