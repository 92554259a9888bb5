//! The Graph API's objects besides messages: numbers, business accounts, subscriptions and media.

use super::errors::GraphError;
use super::graph::Answer;
use super::media::File;
use super::simulator::Simulator;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{Method, request};
use serde_json::{Map, Value, json};

type Answered = Result<Answer, GraphError>;

/// Reads a number, a business account or the metadata of a file.
pub fn get(sim: &Simulator, id: &str, parts: &request::Parts) -> Answered {
    let numbers = &sim.options.numbers;
    let object = if let Some(number) = numbers.iter().find(|number| number.phone_number_id == id) {
        json!({
            "id": id, "display_phone_number": number.display_phone_number,
            "verified_name": number.verified_name, "quality_rating": "GREEN", "status": "CONNECTED",
            "code_verification_status": "VERIFIED", "platform_type": "CLOUD_API",
            "throughput": {"level": "STANDARD"},
        })
    } else if numbers.iter().any(|number| number.waba_id == id) {
        json!({"id": id, "name": "Simulated Business Account", "timezone_id": "1", "currency": "USD"})
    } else if let Some(file) = sim.media().get(id) {
        file.metadata(id, &sim.media_url(id))
    } else {
        return Err(GraphError::no_such_object(id));
    };
    select(object, query(parts, "fields").as_deref()).map(Answer::Json)
}

pub fn delete(sim: &Simulator, id: &str) -> Answered {
    if sim.media().delete(id) {
        Ok(Answer::Json(json!({"success": true})))
    } else {
        Err(GraphError::no_such_object(id))
    }
}

/// Lists the numbers of a business account.
pub fn phone_numbers(sim: &Simulator, waba_id: &str) -> Answered {
    let numbers: Vec<Value> = sim
        .options
        .numbers
        .iter()
        .filter(|number| number.waba_id == waba_id)
        .map(|number| {
            json!({
                "id": number.phone_number_id, "display_phone_number": number.display_phone_number,
                "verified_name": number.verified_name, "quality_rating": "GREEN",
            })
        })
        .collect();
    if numbers.is_empty() {
        return Err(GraphError::no_such_object(waba_id));
    }
    Ok(Answer::Json(json!({ "data": numbers })))
}

/// Shows, makes or ends the app's subscription to a business account.
///
/// The simulator posts webhooks regardless: the subscription is here to be checked, not obeyed.
pub fn subscribed_apps(sim: &Simulator, waba_id: &str, method: &Method) -> Answered {
    if !sim
        .options
        .numbers
        .iter()
        .any(|number| number.waba_id == waba_id)
    {
        return Err(GraphError::no_such_object(waba_id));
    }
    let mut subscribed = sim.subscribed();
    match *method {
        Method::POST => subscribed.insert(waba_id.to_owned()),
        Method::DELETE => subscribed.remove(waba_id),
        _ => {
            let app = json!({"whatsapp_business_api_data": {"id": "100000000000001", "name": "Simulated App"}});
            let data = if subscribed.contains(waba_id) {
                vec![app]
            } else {
                Vec::new()
            };
            return Ok(Answer::Json(json!({ "data": data })));
        }
    };
    Ok(Answer::Json(json!({"success": true})))
}

/// Takes in a multipart upload.
pub async fn upload(sim: &Simulator, parts: &request::Parts, body: &Bytes) -> Answered {
    let refused = |details: &str| GraphError::new(100, details);
    let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|_| refused("the body is not multipart/form-data"))?;
    let (mut product, mut file, mut kind) = (None, None, None);
    while let Some(field) = form
        .next_field()
        .await
        .map_err(|_| refused("the form is cut off"))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        let content_type = field.content_type().map(str::to_owned);
        let bytes = field
            .bytes()
            .await
            .map_err(|_| refused("the form is cut off"))?;
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        match name.as_str() {
            "messaging_product" => product = Some(text()),
            "type" => kind = Some(text()),
            "file" => file = Some((content_type, bytes)),
            _ => {}
        }
    }
    if product.as_deref() != Some("whatsapp") {
        return Err(refused("The parameter messaging_product is required."));
    }
    let (content_type, bytes) = file.ok_or_else(|| refused("The parameter file is required."))?;
    let mime_type = content_type
        .or(kind)
        .ok_or_else(|| refused("The parameter type is required."))?;
    if bytes.is_empty() {
        return Err(GraphError::new(131_053, "the file is empty"));
    }
    let id = sim.mint().media_id();
    sim.media().put(id.clone(), File::new(&mime_type, bytes));
    Ok(Answer::Json(json!({ "id": id })))
}

/// Gives out a file's bytes at a URL that has not expired.
pub fn download(sim: &Simulator, id: &str, parts: &request::Parts) -> Answered {
    let expires = query(parts, "expires").and_then(|text| text.parse::<u64>().ok());
    let live = expires.is_some_and(|expires| expires >= sim.unix_seconds());
    let file = if live { sim.media().get(id) } else { None };
    let gone = || GraphError {
        http: 404,
        ..GraphError::no_such_object(id)
    };
    file.map(Answer::File).ok_or_else(gone)
}

pub fn query(parts: &request::Parts, name: &str) -> Option<String> {
    let url = format!("http://localhost/?{}", parts.uri.query()?);
    let url = reqwest::Url::parse(&url).ok()?;
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn select(object: Value, fields: Option<&str>) -> Result<Value, GraphError> {
    let Some(fields) = fields else {
        return Ok(object);
    };
    let mut selected = Map::new();
    for field in fields
        .split(',')
        .map(str::trim)
        .filter(|field| !field.is_empty())
    {
        let value = object.get(field).cloned();
        let value = value.ok_or_else(|| {
            GraphError::new(100, format!("Tried accessing nonexisting field ({field})"))
        })?;
        selected.insert(field.to_owned(), value);
    }
    if let Some(id) = object.get("id") {
        selected.entry("id").or_insert_with(|| id.clone());
    }
    Ok(Value::Object(selected))
}
