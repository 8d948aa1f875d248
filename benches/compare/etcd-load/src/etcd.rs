//! As much of etcd's protocol as a put takes, and finding the leader.
//!
//! source: etcd's `rpc.proto`, by the numbers of its fields

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// What every answer begins with.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Header {
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// How often the store has changed.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct StatusRequest {}

/// How a member stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(string, tag = "2")]
    pub version: String,
    /// The member that leads, as far as this one knows; 0 if it knows of none.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// One HTTP/2 connection to a member, which any number of callers share.
#[derive(Clone, Debug)]
pub struct Connection(Grpc<Channel>);

impl Connection {
    /// Connects to a member, such as `http://127.0.0.1:2379`.
    pub async fn open(endpoint: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?.tcp_nodelay(true);
        Ok(Self(Grpc::new(endpoint.connect().await?)))
    }

    /// Puts a value, and returns at which revision of the store.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<i64, Status> {
        let request = PutRequest { key: key.to_vec(), value: value.to_vec() };
        let response: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(response.header.unwrap_or_default().revision)
    }

    /// Asks the member how it stands.
    pub async fn status(&mut self) -> Result<StatusResponse, Status> {
        self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    async fn call<Q, R>(&mut self, path: &'static str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, R>::default();
        Ok(self.0.unary(Request::new(request), path, codec).await?.into_inner())
    }
}

impl StatusResponse {
    /// Whether the member that says so leads.
    pub fn is_leader(&self) -> bool {
        self.leader != 0 && self.header.is_some_and(|header| header.member_id == self.leader)
    }
}
